"""What executes the steps of a run: one process where steps are small and the machine is one, a pod a step on a cluster."""

from __future__ import annotations

import dagster as dg


def executor_of(steps: str) -> dg.ExecutorDefinition:
    """Return the executor of every job: for `process` or `pods` (FALAJ_STEPS).

    With pods each step gets a pod of its own, with what its asset is bound to. It takes no config of a run: whoever launches one could
    otherwise write other resources for a step there (`per_step_k8s_config`).
    """
    if steps != "pods":
        return dg.in_process_executor
    from dagster_k8s import k8s_job_executor

    return k8s_job_executor.configured(lambda _: {"enable_owner_references": True}, name=k8s_job_executor.name, config_schema={})
