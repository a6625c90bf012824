"""What executes the steps of a run: one process where steps are small and the machine is one, a pod a step on a cluster."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import dagster as dg

from platform_assets.errors import StateError

if TYPE_CHECKING:
    from resources.admission import Admission


def executor_of(steps: str, *, admission: Callable[[], Admission] | None = None) -> dg.ExecutorDefinition:
    """Return the executor of every job: for `process` or `pods` (FALAJ_STEPS).

    With pods each step gets a pod of its own, with what its asset is bound to. It takes no config of a run: whoever launches one could
    otherwise write other resources for a step there. `admission` is asked for a larger profile where a step ran out of memory; without it
    such a step is tried again as its own retry policy says.
    """
    return dg.in_process_executor if steps != "pods" else _pods(admission)


def _pods(admission: Callable[[], Admission] | None) -> dg.ExecutorDefinition:
    from dagster._core.definitions.executor_definition import multiple_process_executor_requirements

    from resources.dagster_instance.k8s_launcher import STEP_EXECUTOR

    @dg.executor(name=STEP_EXECUTOR, config_schema={}, requirements=multiple_process_executor_requirements())
    def pods(context):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202 - dagster refuses deferred annotations here
        from dagster._core.execution.retries import RetryMode

        from resources.dagster_instance.k8s_launcher import BoundK8sRunLauncher
        from resources.dagster_instance.k8s_steps import BoundStepExecutor, BoundStepHandler
        from resources.dagster_instance.larger import LargerProfiles

        launcher = context.instance.run_launcher
        if not isinstance(launcher, BoundK8sRunLauncher):
            raise StateError(
                f"FALAJ_STEPS=pods was asked for, and the instance launches runs by {type(launcher).__name__}; take "
                "infra/dagster/cluster.yaml as its dagster.yaml, or set FALAJ_STEPS to process."
            )
        handler = BoundStepHandler(launcher, LargerProfiles(admission()) if admission else None)
        return BoundStepExecutor(handler, most_retries=launcher.limits.pod_retries, retries=RetryMode.ENABLED)

    return pods
