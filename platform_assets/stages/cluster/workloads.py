"""The pods that manifests ask for, whatever kind of object asks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Manifest = Mapping[str, Any]
CLUSTER_WIDE = "default"  # namespace of what names none

_TEMPLATES = {
    "Pod": ("spec",),
    "Deployment": ("spec", "template", "spec"),
    "StatefulSet": ("spec", "template", "spec"),
    "DaemonSet": ("spec", "template", "spec"),
    "ReplicaSet": ("spec", "template", "spec"),
    "Job": ("spec", "template", "spec"),
    "CronJob": ("spec", "jobTemplate", "spec", "template", "spec"),
    "InferenceService": ("spec", "predictor"),  # KServe: a pod's fields beside its own
}


@dataclass(frozen=True)
class Workload:
    """A pod that somebody asks for: its specification as Kubernetes writes it."""

    where: str
    namespace: str
    pod: Manifest

    def containers(self) -> Iterator[tuple[str, Manifest]]:
        """Each container with the path to it: an init container and one for debugging can do what any other can."""
        for kind in ("initContainers", "containers", "ephemeralContainers"):
            for container in self.pod.get(kind) or ():
                yield f"{kind}.{container.get('name', '?')}", container


def name_of(manifest: Manifest) -> str:
    """`Kind/namespace/name`, or `Kind/name` of what has no namespace."""
    metadata = manifest.get("metadata") or {}
    name = metadata.get("name") or metadata.get("generateName") or "?"
    return "/".join(part for part in (manifest.get("kind", "?"), metadata.get("namespace"), name) if part)


def namespace_of(manifest: Manifest) -> str:
    """Namespace that an object is in."""
    return (manifest.get("metadata") or {}).get("namespace") or CLUSTER_WIDE


def workloads(manifests: Iterable[Manifest]) -> Iterator[Workload]:
    """Every pod that these ask for."""
    for manifest in manifests:
        kind = manifest.get("kind", "")
        if kind in _TEMPLATES:
            yield Workload(name_of(manifest), namespace_of(manifest), _follow(manifest, _TEMPLATES[kind]))
        elif kind in ("TrainingRuntime", "ClusterTrainingRuntime"):  # Kubeflow Trainer: a JobSet
            for job in _follow(manifest, ("spec", "template", "spec")).get("replicatedJobs") or ():
                where = f"{name_of(manifest)}.{job.get('name', '?')}"
                yield Workload(where, namespace_of(manifest), _follow(job, ("template", "spec", "template", "spec")))


def _follow(value: Manifest, path: tuple[str, ...]) -> Manifest:
    for part in path:
        value = value.get(part) or {}
    return value
