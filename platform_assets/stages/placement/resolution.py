"""What a profile gets on the machine at hand: its GPUs or the CPU, processes, threads, cores. Who looks at the machine is elsewhere.

A declaration names the hardware that production has; the same declaration runs on a laptop with what is there, and says so.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from platform_assets.specs.compute import ComputeProfile
from platform_assets.specs.model import LearningSpec


@dataclass(frozen=True)
class Machine:
    """What is there: cores that this process may use, and names of GPUs that a driver answers for."""

    cores: tuple[int, ...]
    memory_bytes: int
    gpus: tuple[str, ...] = ()


@dataclass(frozen=True)
class Got:
    """What a program is given: `gpus` devices or none, `processes` of `threads` each, on so many cores."""

    gpus: int
    device: str
    processes: int
    threads: int
    cores: int

    @property
    def on_gpu(self) -> bool:
        """Whether there is a GPU for it."""
        return self.gpus > 0


@dataclass(frozen=True)
class Placement:
    """A profile on a machine: what was asked, what was got."""

    name: str
    profile: ComputeProfile
    got: Got

    @property
    def precision(self) -> str | None:
        """The profile's arithmetic where its hardware is there; None leaves the model its own.

        bf16 is a GPU's gain; on a CPU without it the same arithmetic costs many times the time.
        """
        return self.profile.precision if self.got.on_gpu or self.profile.accelerator is None else None

    def learning(self, declared: LearningSpec) -> LearningSpec:
        """Return what decides the weights on this machine: threads change the order of sums, and precision every product."""
        changes: dict[str, Any] = {"threads": self.got.threads}
        if self.precision and "precision" not in declared.model_fields_set and declared.privacy is None:
            changes["precision"] = self.precision
        return declared.model_copy(update=changes)

    def environment(self) -> dict[str, str]:
        """Variables for the started program: thread pools, interfaces between nodes, and no GPU for who asked for none."""
        network = self.profile.network
        names = {"GLOO_SOCKET_IFNAME": network.gloo, "NCCL_SOCKET_IFNAME": network.nccl}
        threads = {name: str(self.got.threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
        hidden = {} if self.got.on_gpu else {"CUDA_VISIBLE_DEVICES": ""}
        return {**threads, **hidden, **{name: value for name, value in names.items() if value}}

    def cache_folder(self, disk: Path) -> Path:
        """Return the folder of the node's cache of shards: below `disk`, or in memory where the profile's tier says so."""
        return Path("/dev/shm", f"falaj{str(disk).replace('/', '-')}") if self.profile.storage.tier == "memory" else disk  # noqa: S108 - memory by declaration

    @property
    def sentence(self) -> str:
        """Say both in a line."""
        gpus = f"{self.profile.gpus} GPU, " if self.profile.gpus else ""
        got = f"{self.got.gpus} x {self.got.device}" if self.got.on_gpu else "CPU"
        return (
            f"asked for {self.name} ({gpus}{self.profile.cpu:g} cores, {self.profile.memory}), got {got}: "
            f"{self.got.processes} process(es) of {self.got.threads} thread(s) on {self.got.cores} core(s)"
        )


def describe(name: str, profile: ComputeProfile) -> dict[str, Any]:
    """Return what a declaration asks for, for people and records."""
    return {
        "profile": name, "gpus": profile.gpus, "cpu": profile.cpu, "memory": profile.memory, "nodes": profile.nodes,
        "precision": profile.precision,
    }  # fmt: skip


def resolve(profile: ComputeProfile, *, name: str, machine: Machine, threads: int | None = None) -> Placement:
    """Fit a profile onto one machine; `threads` a process is the model's own word, which the cores still bound.

    A profile without an accelerator never gets a GPU, whatever the machine has. One with an accelerator gets what is there of it, one
    process each; with none there, one process on the CPU: several would only share the same cores.
    """
    cores = max(1, min(math.ceil(profile.cpu), len(machine.cores)))
    gpus = min(profile.accelerator.count, len(machine.gpus)) if profile.accelerator else 0
    processes = gpus or (min(profile.processes_a_node, cores) if profile.accelerator is None else 1)
    each = min(threads or max(1, cores // processes), cores)
    return Placement(name, profile, Got(gpus, machine.gpus[0] if gpus else "cpu", processes=processes, threads=each, cores=cores))


def choose_cores(cores: Sequence[int], *, busy: Sequence[float], count: int) -> tuple[int, ...]:
    """Return the `count` least busy of `cores`; equally busy ones go by number. `busy` is the load of each, in the same order."""
    order = sorted(zip(busy, cores, strict=True))
    return tuple(sorted(core for _, core in order[:count]))
