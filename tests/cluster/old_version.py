"""What of our manifests Kubernetes 1.20 does not know: left out on this tier alone, and told. They are written for 1.32 and newer."""

from __future__ import annotations

import copy
from typing import Any

Object = dict[str, Any]

NEWER = {  # versions of built-in objects, and since when there are
    "autoscaling/v2": "1.23",
    "policy/v1": "1.21",
    "admissionregistration.k8s.io/v1 ValidatingAdmissionPolicy": "1.30",
    "admissionregistration.k8s.io/v1 ValidatingAdmissionPolicyBinding": "1.30",
}
CUSTOM = {  # groups of custom resources, whose definitions are their projects' own
    "autoscaling.k8s.io", "cert-manager.io", "external-secrets.io", "keda.sh", "kueue.x-k8s.io", "monitoring.coreos.com", "serving.kserve.io",
    "trainer.kubeflow.org", "trust.cert-manager.io",
}  # fmt: skip
NEWER_FIELDS = {  # of containers, and since when there are
    ("lifecycle", "preStop", "sleep"): "1.30",
    ("readinessProbe", "grpc"): "1.24",
    ("livenessProbe", "grpc"): "1.24",
}


def without_what_is_newer(manifests: list[Object]) -> tuple[list[Object], set[str]]:
    """The manifests that 1.20 knows, and a line for each kind or field that was left out."""
    kept, left_out = [], set()
    for one in manifests:
        version, kind = one["apiVersion"], one["kind"]
        since = NEWER.get(version) or NEWER.get(f"{version} {kind}")
        if since is not None:
            left_out.add(f"{kind} ({version}): since {since}")
        elif version.partition("/")[0] in CUSTOM:
            left_out.add(f"{kind} ({version}): a custom resource")
        else:
            kept.append(_without_newer_fields(copy.deepcopy(one), left_out))
    return kept, left_out


def _without_newer_fields(manifest: Object, left_out: set[str]) -> Object:
    pod = ((manifest.get("spec") or {}).get("template") or {}).get("spec") or {}
    for container in [*pod.get("containers", ()), *pod.get("initContainers", ())]:
        for path, since in NEWER_FIELDS.items():
            holder = container
            for name in path[:-1]:
                holder = holder.get(name, {})
            if path[-1] in holder:
                left_out.add(f"{'.'.join(path)} of a container: since {since}")
                del container[path[0]]
    return manifest
