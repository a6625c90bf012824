"""Run pods on Kubernetes: what they ask for is read off the run's execution plan, where the assets' own binding stands."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dagster_k8s.container_context import K8sContainerContext
from dagster_k8s.job import UserDefinedDagsterK8sConfig
from dagster_k8s.launcher import K8sRunLauncher

from platform_assets.stages.placement.binding import bind_pod

if TYPE_CHECKING:
    from dagster import DagsterRun

STEP_EXECUTOR = "k8s"  # gives each step a pod of its own, which dagster-k8s builds from the step's tags and never from the run's


class BoundK8sRunLauncher(K8sRunLauncher):
    """Named as `run_launcher` in infra/dagster/cluster.yaml.

    Dagster's own takes a pod's resources from the run's tags: what a launcher wrote there would count, and what stands on the assets would
    not. Here a run that executes its steps in its own pod gets what they are bound to, and one whose steps have pods of their own gets
    the launcher's configured share alone.
    """

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
