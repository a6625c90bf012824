"""The nodes of this tier, on one machine: some with GPUs, one without, all on the premises."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from cluster.control_plane import ControlPlane
from cluster.kubelet import Kubelet, Machine

PLATFORM, PROBE = "falaj:1", "probe:1"  # what the nodes have; the tenants' own images they do not
ON_PREMISES = {"falaj.ae/jurisdiction": "AE", "falaj.ae/site": "onprem"}
NODES = {  # by name: labels, and what they have
    "cpu-1": ({}, {"cpu": "32", "memory": "128Gi"}),
    "gpu-1": ({"falaj.ae/pool": "gpu"}, {"nvidia.com/gpu": "2"}),
    "gpu-2": ({"falaj.ae/pool": "gpu"}, {"nvidia.com/gpu": "2"}),
}


@dataclass
class Nodes:
    """Those of NODES that are up."""

    plane: ControlPlane
    machine: Machine
    up: dict[str, Kubelet] = field(default_factory=dict)

    def start(self, name: str) -> None:
        labels, capacity = NODES[name]
        api = self.plane.api(f"system:node:{name}")
        self.up[name] = Kubelet(api, name, self.machine, labels={**ON_PREMISES, **labels}, capacity=capacity)

    def lose(self, name: str) -> None:
        """Its power is gone: it says nothing any more."""
        self.up.pop(name).close()

    def replace(self, name: str) -> None:
        """Take a lost one off the cluster, as an operator does, and put another in its place."""
        self.plane.api().delete(f"/api/v1/nodes/{name}")
        self.start(name)

    @contextmanager
    def only(self, *names: str) -> Iterator[None]:
        """Meanwhile no new pod goes to any other one, as if an operator had cordoned them."""
        others = sorted(set(self.up) - set(names))
        for name in others:
            self.plane.api().patch(f"/api/v1/nodes/{name}", {"spec": {"unschedulable": True}})
        try:
            yield
        finally:
            for name in others:
                self.plane.api().patch(f"/api/v1/nodes/{name}", {"spec": {"unschedulable": None}})

    def running(self, pod: str) -> str | None:
        """The node on which the pod's process is alive."""
        return next((name for name, node in self.up.items() if node.runs(pod)), None)
