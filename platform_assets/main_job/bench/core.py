"""What the areas share: a row and its verdict, contestants in processes of their own, interleaved and summed up by medians."""

from __future__ import annotations

import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Literal

from platform_assets.errors import FalajError

Row = dict[str, Any]


def describe_row(what: str, *, value: float, unit: str, against: float | None = None) -> Row:
    """Return a row that tells a figure and judges nothing; `against` is the same figure of a peer."""
    return {"what": what, "value": value, "unit": unit, "against": against, "must": None, "aim": None, "holds": None}


def judge_row(
    what: str,
    *,
    value: float,
    unit: str,
    must: float,
    better: Literal["lower", "higher"],
    aim: float | None = None,
    against: str | None = None,
) -> Row:
    """Return a row with its verdict: `value` is at most (`lower`) or at least (`higher`) what it must be; `against` names the peer."""
    holds = value <= must if better == "lower" else value >= must
    return {"what": what, "value": value, "unit": unit, "against": against, "must": must, "aim": aim, "holds": holds}


@dataclass
class Measured:
    """Seconds of a measured section; CPU seconds are the process's with all threads, and its ended children's."""

    wall_seconds: float = 0.0
    cpu_seconds: float = 0.0
    figures: dict[str, float] = field(default_factory=dict)


@contextmanager
def measured() -> Iterator[Measured]:
    """Measure what happens inside."""
    found = Measured()
    wall, cpu = time.perf_counter(), _cpu_seconds()
    yield found
    found.wall_seconds, found.cpu_seconds = time.perf_counter() - wall, _cpu_seconds() - cpu


def _cpu_seconds() -> float:
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def run_contestant(module: str, arguments: Sequence[str], *, timeout_seconds: float = 1800) -> dict[str, float]:
    """Run `python -m module arguments` and return the figures that its last line of output names, as JSON."""
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=timeout_seconds)
    if done.returncode != 0:
        raise FalajError(f"bench: {module} {' '.join(arguments)} ended with {done.returncode}: {done.stderr.strip()[-800:]}")
    figures: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return figures


def interleave(contestants: Mapping[str, Callable[[], dict[str, float]]], *, repeats: int) -> dict[str, dict[str, float]]:
    """Run all contestants in turn, `repeats` times over, so that a slow minute of the machine meets each; return each one's medians."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in contestants}
    for _ in range(repeats):
        for name, run in contestants.items():
            found[name].append(run())
    return {name: {figure: median(run[figure] for run in runs) for figure in runs[0]} for name, runs in found.items()}


def describe_machine() -> str:
    """Return processor, cores and memory in one line."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor())
    flags = next((set(line.split(":", 1)[1].split()) for line in lines if line.startswith("flags")), set())
    vector = next((label for flag, label in (("avx512_vnni", "AVX-512 VNNI"), ("avx2", "AVX2")) if flag in flags), "no AVX2")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{name} ({vector}), {os.cpu_count()} cores, {memory:.0f} GiB, Python {platform.python_version()}"
