"""What a torch.profiler trace (Chrome's trace format, gzipped) says of where the time of the traced steps went."""

from __future__ import annotations

import gzip
import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from platform_assets.errors import DataError

LARGEST_BYTES = 16 * 2**20  # gzipped: JSON of this size takes some 2 GB as Python objects
LARGEST_TEXT = 32 * LARGEST_BYTES  # unpacked: JSON of a trace shrinks to a tenth or so
_ON_GPU = ("kernel", "gpu_memcpy", "gpu_memset")


@dataclass(frozen=True)
class Operator:
    """One operator or GPU kernel over all traced steps. `share`: of the self time of its place (CPU or GPU)."""

    name: str
    place: str
    calls: int
    self_ms: float
    share: float


def top_operators(trace: Path, *, count: int = 8) -> list[Operator]:
    """Return the operators with the most time of their own, longest first: GPU kernels and CPU operators, `count` of each place.

    An operator's own time is its duration without that of the operators that it called on the same thread. Raises DataError for a
    damaged trace, and for one too large to be read as a whole.
    """
    events = _read_events(trace)
    complete = [event for event in events if event.get("ph") == "X" and "dur" in event]
    by_place = {
        "GPU": _own_times(event for event in complete if event.get("cat") in _ON_GPU),
        "CPU": _own_times(event for event in complete if event.get("cat") == "cpu_op"),
    }
    found = []
    for place, operators in by_place.items():
        whole = sum(own for _, own in operators.values()) or 1.0
        longest = sorted(operators.items(), key=lambda one: -one[1][1])[:count]
        found += [Operator(name, place, calls, round(own / 1000, 3), own / whole) for name, (calls, own) in longest]
    return found


def _read_events(trace: Path) -> list[dict[str, Any]]:
    size = trace.stat().st_size
    if size > LARGEST_BYTES:
        raise DataError(f"{trace.name} of {size / 2**20:.0f} MiB is too large to be summed up here; open it in Perfetto")
    try:
        with gzip.open(trace, "rt", encoding="utf-8") as file:
            text = file.read(LARGEST_TEXT + 1)
            if len(text) > LARGEST_TEXT:
                raise DataError(f"{trace.name} unpacks to more than {LARGEST_TEXT / 2**20:.0f} Mi characters; open it in Perfetto")
            return list(json.loads(text)["traceEvents"])
    except (OSError, EOFError, ValueError, KeyError) as error:
        raise DataError(f"{trace.name} is no whole trace of torch.profiler: {error}") from error


def _own_times(events: Iterable[dict[str, Any]]) -> dict[str, tuple[int, float]]:
    """Calls and own microseconds by name. On one thread events nest: a stack of open ones finds each one's caller."""
    lanes: dict[tuple[Any, Any], list[dict[str, Any]]] = defaultdict(list)
    for event in events:
        lanes[event.get("pid"), event.get("tid")].append(event)
    calls: dict[str, int] = defaultdict(int)
    own: dict[str, float] = defaultdict(float)
    for lane in lanes.values():
        open_ones: list[tuple[float, str]] = []
        for event in sorted(lane, key=lambda one: (one["ts"], -one["dur"])):
            while open_ones and open_ones[-1][0] <= event["ts"]:
                open_ones.pop()
            if open_ones:
                own[open_ones[-1][1]] -= event["dur"]
            calls[event["name"]] += 1
            own[event["name"]] += event["dur"]
            open_ones.append((event["ts"] + event["dur"], event["name"]))
    return {name: (calls[name], max(0.0, own[name])) for name in own}
