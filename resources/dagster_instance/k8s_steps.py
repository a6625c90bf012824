"""Step pods on Kubernetes: what befalls one is said in a sentence, and decides whether and on what its step is tried again.

Dagster's own handler looks at a step's job alone: a pod whose image is not there leaves it active for ever, one that was evicted ends
a step as wrong code does, and a job that is complete is well, though its step may have no end. An API server that is away for longer than
half a minute while a step is launched ends the run.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from dagster import MetadataValue
from dagster._core.events import DagsterEvent, DagsterEventType, EngineEventData
from dagster._core.execution.plan.objects import StepFailureData, StepRetryData
from dagster._core.executor.step_delegating import CheckStepHealthResult, StepDelegatingExecutor, StepHandlerContext
from dagster_k8s.container_context import K8sContainerContext
from dagster_k8s.executor import K8sStepHandler

from platform_assets.stages.placement.binding import COMPUTE
from platform_assets.stages.placement.pod_ends import PodEnd, PodSeen, ended_in_silence, how_ended, never_started, what_keeps
from resources.dagster_instance.k8s_patience import patiently
from resources.dagster_instance.k8s_pods import see_pods

if TYPE_CHECKING:
    from dagster._core.execution.context.system import IStepContext
    from dagster._core.execution.plan.state import KnownExecutionState
    from dagster._utils.error import SerializableErrorInfo

    from resources.dagster_instance.k8s_launcher import BoundK8sRunLauncher
    from resources.dagster_instance.larger import LargerProfiles

_BEGINNINGS = {DagsterEventType.STEP_START, DagsterEventType.STEP_RESTARTED}
_ENDS = {DagsterEventType.STEP_SUCCESS, DagsterEventType.STEP_FAILURE, DagsterEventType.STEP_UP_FOR_RETRY}
_ATTEMPT = "falaj/attempt"  # with a profile, in the event log: a run worker that takes over goes by what another has decided


class _Rebound(StepHandlerContext):
    """A step as it is, but for what it is bound to."""

    def __init__(self, context: StepHandlerContext, key: str, tags: Mapping[str, str]) -> None:
        self.__dict__.update(context.__dict__)
        self._tags = {key: tags}

    @property
    def step_tags(self) -> Mapping[str, Mapping[str, str]]:
        return self._tags


class BoundStepHandler(K8sStepHandler):
    """Launches step pods and looks after them. `ends` holds what was found of ended ones until the executor has asked."""

    def __init__(self, launcher: BoundK8sRunLauncher, larger: LargerProfiles | None) -> None:
        super().__init__(
            image=None, container_context=K8sContainerContext(), load_incluster_config=launcher.load_incluster_config,
            kubeconfig_file=launcher.kubeconfig_file, enable_owner_references=True,
        )  # fmt: skip
        self._limits, self._larger = launcher.limits, larger
        self._since: dict[tuple[str, str], float] = {}
        self.ends: dict[str, PodEnd] = {}

    def launch_step(self, step_handler_context: StepHandlerContext) -> Iterator[DagsterEvent]:
        """Make the step's job, unless this attempt has or has had one: then looking after it says what became of it.

        So it is where a run worker takes over from a dead one, and where the API server took a job in and was gone before it could say so.
        """
        context = self._on_its_profile(step_handler_context)

        def launch() -> list[DagsterEvent]:
            return [] if self._is_launched(context) else list(super(BoundStepHandler, self).launch_step(context))

        yield from patiently(launch, seconds=self._limits.api_wait_seconds)

    def check_step_health(self, step_handler_context: StepHandlerContext) -> CheckStepHealthResult:
        """Look at the job and its pods, and at the run's event log where they say that the step is over."""
        context = step_handler_context
        status = self._api_client.get_job_status(self._get_k8s_step_job_name(context), self._namespace(context))
        pods = self._pods(context)
        if status is None or status.failed:
            end: PodEnd | None = how_ended(pods)
        else:
            end = self._end_of_silence(context, pods) if status.succeeded else self._end_of_waiting(context, pods)
        if end is None:
            return CheckStepHealthResult.healthy()
        if end.out_of_memory and self._larger is not None:
            end = self._with_more_memory(context, end, self._larger)
        self.ends[self._get_step_key(context)] = end
        return CheckStepHealthResult.unhealthy(end.sentence)

    def _is_launched(self, context: StepHandlerContext) -> bool:
        job, key = self._get_k8s_step_job_name(context), self._get_step_key(context)
        if self._api_client.get_job_status(job, self._namespace(context)) is not None:
            return True
        begun = [stats.attempts or 0 for stats in context.instance.get_run_step_stats(context.dagster_run.run_id, [key])]
        return max(begun, default=0) > _attempt(context, key)  # its job is gone: the step refuses to begin the same attempt twice

    def _end_of_waiting(self, context: StepHandlerContext, pods: list[PodSeen]) -> PodEnd | None:
        job, pod = self._get_k8s_step_job_name(context), what_keeps(pods)
        waited = self._waited(job, "image", pod is not None)
        if pod is None or waited < self._limits.image_wait_seconds:
            return None
        self._api_client.delete_job(job, self._namespace(context))  # else it begins, unasked, once the image is there
        return never_started(pod, waited_seconds=waited)

    def _end_of_silence(self, context: StepHandlerContext, pods: list[PodSeen]) -> PodEnd | None:
        key = self._get_step_key(context)
        logged = context.instance.all_logs(context.dagster_run.run_id, of_type=_BEGINNINGS | _ENDS)
        events = [(entry.dagster_event_type, entry.timestamp) for entry in logged if entry.step_key == key]
        is_silent = sum(kind in _ENDS for kind, _ in events) <= _attempt(context, key)  # each attempt before this one has an end
        waited = self._waited(self._get_k8s_step_job_name(context), "event", is_silent)
        if not is_silent or waited < self._limits.event_wait_seconds:
            return None
        return ended_in_silence(pods, began=max((at for kind, at in events if kind in _BEGINNINGS), default=None))

    def _waited(self, job: str, what: str, waits: bool) -> float:  # noqa: FBT001 - private
        """Return for how many seconds this has been found of a job without a break."""
        if not waits:
            self._since.pop((job, what), None)
            return 0.0
        return time.monotonic() - self._since.setdefault((job, what), time.monotonic())

    def _with_more_memory(self, context: StepHandlerContext, end: PodEnd, larger: LargerProfiles) -> PodEnd:
        key, profile = self._get_step_key(context), self._profile(context)
        if profile is None:
            return end
        room = larger.ask(context.instance, context.dagster_run, step_key=key, profile=profile)
        if room.profile is not None:
            decided: dict[str, MetadataValue[Any]] = {
                COMPUTE: MetadataValue.text(room.profile),
                _ATTEMPT: MetadataValue.int(_attempt(context, key) + 1),
            }
            DagsterEvent.engine_event(context.get_step_context(key), room.sentence, EngineEventData(metadata=decided))
        return PodEnd(f"{end.sentence} {room.sentence}", again=room.profile is not None)

    def _on_its_profile(self, context: StepHandlerContext) -> StepHandlerContext:
        key = self._get_step_key(context)
        declared, profile = context.step_tags[key], self._profile(context)
        if self._larger is None or profile is None or profile == declared.get(COMPUTE):
            return context
        return _Rebound(context, key, self._larger.bind(declared, profile=profile))

    def _profile(self, context: StepHandlerContext) -> str | None:
        """Return the profile of this attempt: the last one that was decided on for it or an earlier one, else the declared."""
        key = self._get_step_key(context)
        profile, attempt = context.step_tags[key].get(COMPUTE), _attempt(context, key)
        if attempt:
            for entry in context.instance.all_logs(context.dagster_run.run_id, of_type=DagsterEventType.ENGINE_EVENT):
                event = entry.dagster_event
                told = event.engine_event_data.metadata if event is not None and event.step_key == key else {}
                if _ATTEMPT in told and int(told[_ATTEMPT].value) <= attempt:  # type: ignore[arg-type]
                    profile = str(told[COMPUTE].value)
        return profile

    def _namespace(self, context: StepHandlerContext) -> str:
        return str(self._get_container_context(context).namespace)

    def _pods(self, context: StepHandlerContext) -> list[PodSeen]:
        return see_pods(self._api_client, self._get_k8s_step_job_name(context), self._namespace(context))


def _attempt(context: StepHandlerContext, key: str) -> int:
    """Count the attempts of a step before this one."""
    known = context.execute_step_args.known_state
    return known.get_retry_state().get_attempt_count(key) if known else 0


class BoundStepExecutor(StepDelegatingExecutor):
    """Tries a step again whose pod the cluster took away, whatever its retry policy says: the policy is about the step's own failures."""

    def __init__(self, handler: BoundStepHandler, *, most_retries: int, **more: Any) -> None:
        super().__init__(handler, should_verify_step=True, **more)
        self._handler, self._most_retries = handler, most_retries

    def log_failure_or_retry_event_after_error(
        self, step_context: IStepContext, err_info: SerializableErrorInfo, known_state: KnownExecutionState
    ) -> DagsterEvent:
        """Decide on a step whose pod has ended, and write it into the event log."""
        key = step_context.step.key
        end = self._handler.ends.pop(key, None)
        if end is None or end.again is None:
            return super().log_failure_or_retry_event_after_error(step_context, err_info, known_state)
        tried = known_state.get_retry_state().get_attempt_count(key)
        if end.again and tried < self._most_retries and not step_context.retry_mode.disabled:
            return DagsterEvent.step_retry_event(step_context, StepRetryData(error=err_info))
        return DagsterEvent.step_failure_event(step_context, StepFailureData(error=err_info, user_failure_data=None))
