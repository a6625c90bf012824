"""Run pods on Kubernetes: what they ask for is read off the run's execution plan, where the assets' own binding stands."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from dagster import Field, IntSource
from dagster._core.launcher import CheckRunHealthResult, WorkerStatus
from dagster_k8s.container_context import K8sContainerContext
from dagster_k8s.job import UserDefinedDagsterK8sConfig, get_job_name_from_run_id
from dagster_k8s.launcher import K8sRunLauncher

from platform_assets.stages.placement.binding import bind_pod
from platform_assets.stages.placement.pod_ends import never_started, what_keeps
from resources.dagster_instance.k8s_patience import patiently
from resources.dagster_instance.k8s_pods import see_pods

if TYPE_CHECKING:
    from dagster import DagsterRun
    from dagster._core.launcher import LaunchRunContext, ResumeRunContext

    from platform_assets.stages.placement.pod_ends import PodSeen

STEP_EXECUTOR = "k8s"  # gives each step a pod of its own, which dagster-k8s builds from the step's tags and never from the run's
_GONE = "could not be found"  # dagster-k8s's words for a job that is not there, as against an answer that is not


@dataclass(frozen=True)
class Limits:
    """How long is waited for what may come yet, and how often a step is tried again whose pod the cluster took away."""

    image_wait_seconds: int = 300
    event_wait_seconds: int = 30
    api_wait_seconds: int = 300
    pod_retries: int = 3


class BoundK8sRunLauncher(K8sRunLauncher):
    """Named as `run_launcher` in infra/dagster/cluster.yaml.

    Dagster's own takes a pod's resources from the run's tags: what a launcher wrote there would count, and what stands on the assets would
    not. Here a run that executes its steps in its own pod gets what they are bound to, and one whose steps have pods of their own gets
    the launcher's configured share alone.
    """

    def __init__(self, *, limits: Limits | None = None, **more: Any) -> None:
        super().__init__(**more)
        self.limits = limits or Limits()
        self._kept_since: dict[str, float] = {}  # when a worker's job was first seen to wait for its image, without a break since

    @classmethod
    def config_type(cls) -> dict[str, Any]:
        """Return the fields of dagster-k8s, and those of `Limits`."""
        ours = {name: Field(IntSource, is_required=False, default_value=value) for name, value in asdict(Limits()).items()}
        return {**super().config_type(), **ours}

    @classmethod
    def from_config_value(cls, inst_data: Any, config_value: Mapping[str, Any]) -> BoundK8sRunLauncher:
        """Make it of what the instance's file says."""
        names = asdict(Limits())
        limits = Limits(**{name: value for name, value in config_value.items() if name in names})
        return cls(inst_data=inst_data, limits=limits, **{name: value for name, value in config_value.items() if name not in names})

    def launch_run(self, context: LaunchRunContext) -> None:
        """Make the run's job, once; an API server that is away is waited for."""
        self._launch(lambda: super(BoundK8sRunLauncher, self).launch_run(context), get_job_name_from_run_id(context.dagster_run.run_id))

    def resume_run(self, context: ResumeRunContext) -> None:
        """Make the job of a new worker for a run whose worker has died; the steps' own pods go on meanwhile."""
        job = get_job_name_from_run_id(context.dagster_run.run_id, resume_attempt_number=context.resume_attempt_number)
        self._launch(lambda: super(BoundK8sRunLauncher, self).resume_run(context), job)

    def _launch(self, launch: Callable[[], None], job: str) -> None:
        def ask() -> None:
            if self._api_client.get_job_status(job, self.job_namespace) is None:  # an earlier try may have been heard, and not answered
                launch()

        patiently(ask, seconds=self.limits.api_wait_seconds)

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        """Ask for the run's job; no answer is no death: a run would be failed, or get a second worker beside the one that lives.

        A worker that has waited for its image for `image_wait_seconds` is dead, however active its job.
        """
        found = super().check_run_worker_health(run)
        if found.status == WorkerStatus.UNKNOWN and _GONE not in (found.msg or ""):
            return CheckRunHealthResult(WorkerStatus.RUNNING, f"The API server did not answer; it is asked again. {found.msg}")
        if found.status == WorkerStatus.RUNNING:
            job = self._worker_of(run)
            keeps = what_keeps(see_pods(self._api_client, job, self.job_namespace))
            since = self._kept_since.setdefault(job, time.monotonic()) if keeps else self._kept_since.pop(job, None)
            if keeps and since is not None and (waited := time.monotonic() - since) >= self.limits.image_wait_seconds:
                return CheckRunHealthResult(WorkerStatus.FAILED, self._take_away(job, keeps, waited_seconds=waited))
        return found

    def get_run_worker_debug_info(self, run: DagsterRun, include_container_logs: bool | None = True) -> str | None:  # noqa: FBT001, FBT002 - theirs
        """Say why the monitor gives a run up: it alone asks, just before it does.

        A worker that waits for its image is taken away then. Nobody would look after it again: it would hold its share of the quota for
        ever, or begin a run that has failed.
        """
        job = self._worker_of(run)
        keeps = what_keeps(see_pods(self._api_client, job, self.job_namespace))
        if keeps is None:
            return super().get_run_worker_debug_info(run, include_container_logs=include_container_logs)
        return self._take_away(job, keeps, waited_seconds=time.time() - keeps.created)

    def _take_away(self, job: str, keeps: PodSeen, *, waited_seconds: float) -> str:
        self._kept_since.pop(job, None)
        self._api_client.delete_job(job, self.job_namespace)
        return never_started(keeps, waited_seconds=waited_seconds).sentence

    def _worker_of(self, run: DagsterRun) -> str:
        return str(get_job_name_from_run_id(run.run_id, resume_attempt_number=self._get_resume_attempt_number(run)))

    def get_container_context_for_run(self, dagster_run: DagsterRun) -> K8sContainerContext:
        """Return the pod of a run; StageError where one pod would have to hold a GPU for steps without one."""
        context = K8sContainerContext.create_for_run(dagster_run, self, include_run_tags=False)
        if dagster_run.execution_plan_snapshot_id is None:
            return context
        plan = self._instance.get_execution_plan_snapshot(dagster_run.execution_plan_snapshot_id)
        if plan.executor_name == STEP_EXECUTOR:
            return context
        wanted = set(plan.step_keys_to_execute)
        bound = bind_pod([step.tags or {} for step in plan.steps if step.key in wanted])
        return context.merge(K8sContainerContext(run_k8s_config=UserDefinedDagsterK8sConfig.from_dict(bound)))
