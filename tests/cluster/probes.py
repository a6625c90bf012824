"""Pods that a test makes by hand: they sleep, or ask for what no node has."""

from __future__ import annotations

from typing import Any

from cluster.api import Api
from cluster.control_plane import until

Object = dict[str, Any]


def probe(name: str, *, command: tuple[str, ...] = ("sleep", "600"), resources: Object | None = None, **spec: Any) -> Object:
    container = {"name": "probe", "image": "probe:1", "command": list(command), "resources": resources or {}}
    return {
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {"restartPolicy": "Never", "terminationGracePeriodSeconds": 5, "containers": [container], **spec},
    }  # fmt: skip


def gpus(count: int) -> Object:
    asked = {"cpu": "1", "memory": "1Gi", "nvidia.com/gpu": str(count)}
    return {"requests": asked, "limits": asked}


def pods(namespace: str) -> str:
    return f"/api/v1/namespaces/{namespace}/pods"


def phase(api: Api, namespace: str, name: str) -> str:
    return api.get(f"{pods(namespace)}/{name}")["status"]["phase"]


def until_phase(api: Api, namespace: str, name: str, wanted: str) -> None:
    until(lambda: phase(api, namespace, name) == wanted, what=f"{name} {wanted}")


def until_unschedulable(api: Api, namespace: str, name: str) -> str:
    """Wait until the scheduler has found no place; what it says."""

    def said() -> list[str]:
        found = api.get(f"{pods(namespace)}/{name}")["status"].get("conditions") or ()
        return [one["message"] for one in found if one["type"] == "PodScheduled" and one.get("reason") == "Unschedulable"]

    until(said, what=f"{name} without a place")
    return said()[0]


def until_gone(api: Api, namespace: str, name: str) -> None:
    until(lambda: name not in {one["metadata"]["name"] for one in api.items(pods(namespace))}, what=f"{name} gone")
