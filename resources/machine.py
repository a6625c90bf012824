"""The machine at hand: cores, memory, GPUs, and pinning a started program to cores. What a profile makes of it is decided elsewhere."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

from platform_assets.stages.placement.resolution import Machine, Placement, choose_cores

_DRIVER = Path("/proc/driver/nvidia/gpus")
_LOOK_SECONDS = 0.1


@lru_cache(maxsize=1)
def look_at_machine() -> Machine:
    """Count cores and GPUs, without torch; hardware does not change while a process lives."""
    import psutil

    return Machine(cores=_cores(), memory_bytes=psutil.virtual_memory().total, gpus=_nvml_gpus() or _driver_gpus(_DRIVER))


def pin(pid: int, placement: Placement) -> tuple[int, ...]:
    """Keep a program just started on the placement's number of cores, the least busy ones; return them.

    Its threads and children inherit it. Nothing is done where the profile asks for every core, or the system knows no affinity.
    """
    cores = _cores()
    if placement.got.cores >= len(cores) or not hasattr(os, "sched_setaffinity"):
        return cores
    chosen = choose_cores(cores, busy=_busy(cores), count=placement.got.cores)
    os.sched_setaffinity(pid, chosen)
    return chosen


@contextmanager
def pinned(placement: Placement) -> Iterator[None]:
    """Let programs that this thread starts meanwhile inherit the placement's cores; other threads keep theirs."""
    before = _cores()
    pin(0, placement)
    try:
        yield
    finally:
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, before)


def _cores() -> tuple[int, ...]:
    return tuple(sorted(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else tuple(range(os.cpu_count() or 1))


def _busy(cores: tuple[int, ...]) -> list[float]:
    import psutil

    load = psutil.cpu_percent(interval=_LOOK_SECONDS, percpu=True)
    return [load[core] if core < len(load) else 0.0 for core in cores]


def _nvml_gpus() -> tuple[str, ...]:
    try:
        import pynvml
    except ImportError:
        return ()
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return ()
    try:
        handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
        return tuple(str(pynvml.nvmlDeviceGetName(handle)) for handle in handles)
    finally:
        pynvml.nvmlShutdown()


def _driver_gpus(folder: Path) -> tuple[str, ...]:
    """What the kernel's driver lists, where NVML's library is absent."""
    found = []
    for file in sorted(folder.glob("*/information")) if folder.is_dir() else ():
        model = next((line for line in file.read_text().splitlines() if line.startswith("Model:")), "Model: GPU")
        found.append(model.partition(":")[2].strip())
    return tuple(found)
