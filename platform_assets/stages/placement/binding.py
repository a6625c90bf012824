"""What a profile means to Dagster and Kubernetes, as plain op tags and a pool: it stands on the asset, so it holds however a run starts.

Op tags never reach a run's own tags, and a run's own never reach the steps: whoever launches reads the plan and calls `bind_run` on it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from platform_assets.errors import StageError
from platform_assets.specs.compute import ComputeProfile, Impact, TolerationSpec, parse_memory

K8S_CONFIG = "dagster-k8s/config"
K8S_RESOURCES = "dagster-k8s/resource_requirements"  # the older name of the same, still read by dagster-k8s
PRIORITY = "dagster/priority"
COMPUTE, GPUS, TENANT, MODEL, IMPACT = "falaj/compute", "falaj/gpus", "falaj/tenant", "falaj/model", "falaj/impact"
_IMPACTS: tuple[Impact, ...] = get_args(Impact)  # from the least to the most


@dataclass(frozen=True)
class Binding:
    """Op tags of an asset, and the pool of its accelerator profile."""

    tags: Mapping[str, str]
    pool: str | None


def bind(profile: ComputeProfile, *, name: str, tenant: str = "", model: str = "", impact: Impact = "normal") -> Binding:
    """Say what an asset runs on."""
    told = {COMPUTE: name, GPUS: str(profile.gpus), TENANT: tenant, MODEL: model, IMPACT: impact}
    tags = {key: value for key, value in told.items() if value}
    labels = {f"falaj.ae/{key.removeprefix('falaj/')}": value for key, value in tags.items()}
    config = kubernetes_config(profile, labels=labels, priority_class=profile.priority_class or f"falaj-{impact}")
    return Binding({**tags, K8S_CONFIG: json.dumps(config, sort_keys=True)}, pool_of(name) if profile.accelerator else None)


def pool_of(profile: str) -> str:
    """Name of the pool that counts the steps of an accelerator profile."""
    return f"falaj-{profile}"


def kubernetes_config(profile: ComputeProfile, *, labels: Mapping[str, str], priority_class: str) -> dict[str, Any]:
    """Return the `dagster-k8s/config` of one node of a profile. A GPU is asked for by a profile that has one, and by no other."""
    resources = {"cpu": f"{profile.cpu * 1000:.0f}m", "memory": profile.memory}
    if profile.accelerator:
        resources[f"{profile.accelerator.kind}.com/gpu"] = str(profile.accelerator.count)
    container: dict[str, Any] = {"resources": {"requests": resources, "limits": resources}}
    pod: dict[str, Any] = {"priority_class_name": priority_class}
    if profile.node_selector:
        pod["node_selector"] = profile.node_selector
    if profile.tolerations:
        pod["tolerations"] = [_toleration(one) for one in profile.tolerations]
    if profile.storage.tier == "memory" or profile.processes_a_node > 1:  # a container's own /dev/shm has 64 MiB: too little for both
        size = {"size_limit": profile.storage.cache} if profile.storage.tier == "memory" else {}
        pod["volumes"] = [{"name": "falaj-shm", "empty_dir": {"medium": "Memory", **size}}]
        container["volume_mounts"] = [{"name": "falaj-shm", "mount_path": "/dev/shm"}]  # noqa: S108 - in the pod
    return {"container_config": container, "pod_spec_config": pod, "pod_template_spec_metadata": {"labels": dict(labels)}}


def _toleration(spec: TolerationSpec) -> dict[str, str]:
    told = {"key": spec.key, "operator": "Equal" if spec.value else "Exists", "value": spec.value, "effect": spec.effect}
    return {name: value for name, value in told.items() if value}


def bind_run(tags: Mapping[str, str], steps: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """Return the tags to write over a run's own, so that they say what its steps are bound to, whatever its launcher wrote.

    `steps` are the step tags of the run's execution plan. A tag cannot be taken off a run, so some are emptied.
    Whose the run is, and its priority, are admission's, which always writes them.
    """
    profiles = sorted({step[COMPUTE] for step in steps if COMPUTE in step})
    impacts = {step[IMPACT] for step in steps if IMPACT in step}
    found = {
        COMPUTE: ",".join(profiles),
        GPUS: str(max((int(step.get(GPUS, "0")) for step in steps), default=0)),
        IMPACT: next((impact for impact in reversed(_IMPACTS) if impact in impacts), ""),
    }
    return {**found, **{name: "{}" for name in (K8S_CONFIG, K8S_RESOURCES) if name in tags}}


def bind_pod(steps: Sequence[Mapping[str, str]]) -> dict[str, Any]:
    """Return the `dagster-k8s/config` of a pod that runs all these steps in one process: as much as the largest of them asks for.

    Raises StageError where some steps have GPUs and others have none: the pod would hold a GPU through steps that may not have it.
    """
    bound = [step for step in steps if K8S_CONFIG in step]
    with_gpus = {step.get(COMPUTE, "?") for step in bound if int(step.get(GPUS, "0"))}
    without = {step.get(COMPUTE, "?") for step in bound} - with_gpus
    if with_gpus and without:
        raise StageError(
            f"One process was asked to run steps of profiles with GPUs ({', '.join(sorted(with_gpus))}) and without "
            f"({', '.join(sorted(without))}): it would hold a GPU through steps that may not have one. Launch them apart, or let each step "
            "have a pod of its own (executor k8s)."
        )
    configs = [json.loads(step[K8S_CONFIG]) for step in bound]
    return max(configs, key=_size, default={})


def _size(config: Mapping[str, Any]) -> tuple[float, ...]:
    asked = config["container_config"]["resources"]["requests"]
    gpus = sum(int(value) for name, value in asked.items() if name.endswith(".com/gpu"))
    return gpus, parse_memory(asked["memory"]), float(asked["cpu"].removesuffix("m"))
