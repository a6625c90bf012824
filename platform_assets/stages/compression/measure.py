"""Figures of one ONNX file on this CPU: answers, CPU time and latency with their ranges, batch invariance.

Sessions run as the server runs them: declared threads, no spinning, preprocessing inside the timed graph.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from platform_assets.errors import StageError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from platform_assets.networks.rows import Rows


class UnsupportedGraphError(StageError):
    """The runtime lacks an operator of the graph, or a form of it."""


Inputs = dict[str, "NDArray[Any]"]
WARM_UP_CALLS = 20
ROUNDS = 9  # interleaved over the candidates, so that a busy moment of the machine meets them all
CALLS = {1: 120, 32: 24}
GLANCE = {1: 25, 32: 5}  # calls of a first look, before anything has learnt
RUN_ROWS = 512  # answered at once: a text's attention takes half a megabyte a row
INVARIANCE_ROWS = 64  # looked at alone; in batches of every size
INVARIANCE = 1e-4  # largest difference in probability between a row alone and in a batch; float32 rounding gives 1e-6
_NORMAL = 1.96  # of 95 %


@dataclass(frozen=True)
class Timing:
    """CPU microseconds a row with the range of their median, and latency of one row."""

    cpu_us_b1: float
    cpu_us_b32: float
    latency_ms_p50: float
    latency_ms_p99: float
    cpu_us_b1_range: tuple[float, float]
    cpu_us_b32_range: tuple[float, float]


def open_session(model: Path | bytes, *, threads: int) -> Any:
    """Open an onnxruntime session as the server does."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # a graph that it refuses is told as a rejection, not on the terminal
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    given = model if isinstance(model, bytes) else str(model)
    with _refusal():
        return onnxruntime.InferenceSession(given, options, providers=["CPUExecutionProvider"])


@contextmanager
def _refusal() -> Iterator[None]:
    """Say in one sentence what the runtime lacks; its own exceptions have no common class but Exception."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    kinds = tuple(kind for kind in vars(state).values() if isinstance(kind, type) and issubclass(kind, Exception))
    try:
        yield
    except kinds as error:
        said = str(error).strip().splitlines()[0].partition(" Status Message")[0]
        raise UnsupportedGraphError(f"onnxruntime cannot run it: {said[:200]}") from error


def feeds(rows: Rows) -> Inputs:
    """Inputs of the model interface, absent ones left out."""
    given = {"numeric": rows.numeric, "categorical": rows.strings(), "image": rows.image, "text": rows.passages()}
    return {name: array for name, array in given.items() if array.shape[1]}


def answer(session: Any, inputs: Inputs) -> NDArray[np.float32]:
    """Answer all rows: probabilities [N, C]."""
    rows = len(next(iter(inputs.values())))
    with _refusal():
        return np.concatenate([session.run(None, cut(inputs, start, RUN_ROWS))[0] for start in range(0, rows, RUN_ROWS)])


def find_batch_difference(session: Any, inputs: Inputs, *, sizes: Sequence[int]) -> float:
    """Largest difference between a row's answer alone and in a batch of each size; the rows are repeated where there are too few."""
    rows = min(INVARIANCE_ROWS, len(next(iter(inputs.values()))))
    alone = np.concatenate([session.run(None, cut(inputs, start, 1))[0] for start in range(rows)])
    worst = 0.0
    for size in sizes:
        chosen = np.arange(max(rows, size)) % rows
        found = np.concatenate(
            [
                session.run(None, {name: part[chosen[at : at + size]] for name, part in inputs.items()})[0]
                for at in range(0, len(chosen), size)
            ]
        )
        worst = max(worst, float(np.abs(found - alone[chosen]).max()))
    return worst


def time_sessions(
    sessions: dict[str, Any], *, inputs: Inputs, rounds: int = ROUNDS, calls: dict[int, int] | None = None
) -> dict[str, Timing]:
    """Time every session in turn, round after round; CPU time is the median over rounds of process CPU time, latency is over all calls."""
    rows, calls = len(next(iter(inputs.values()))), calls or CALLS
    for session in sessions.values():
        for _ in range(min(WARM_UP_CALLS, calls[1])):
            session.run(None, cut(inputs, 0, 1))
    cpu: dict[str, dict[int, list[float]]] = {name: {size: [] for size in calls} for name in sessions}
    walls: dict[str, list[float]] = {name: [] for name in sessions}
    for turn in range(rounds):
        for name, session in sessions.items():
            for size, count in calls.items():
                took, each = _time(session, cut(inputs, turn * size % max(1, rows - size), size), calls=count)
                cpu[name][size].append(took * 1e6 / (count * min(size, rows)))
                walls[name] += each if size == 1 else []
    return {
        name: Timing(
            cpu_us_b1=float(np.median(cpu[name][1])), cpu_us_b32=float(np.median(cpu[name][32])),
            latency_ms_p50=float(np.quantile(walls[name], 0.5)) * 1e3, latency_ms_p99=float(np.quantile(walls[name], 0.99)) * 1e3,
            cpu_us_b1_range=median_range(cpu[name][1]), cpu_us_b32_range=median_range(cpu[name][32]),
        )
        for name in sessions
    }  # fmt: skip


def median_range(values: Sequence[float]) -> tuple[float, float]:
    """Range that holds the median with about 95 %, by order statistics (Conover, 1999): the whole sample where there are few."""
    ordered, count = sorted(values), len(values)
    half = _NORMAL * count**0.5 / 2
    return ordered[max(0, int(count / 2 - half))], ordered[min(count - 1, int(count / 2 + half))]


def cut(inputs: Inputs, start: int, size: int) -> Inputs:
    """Return some rows."""
    return {name: array[start : start + size] for name, array in inputs.items()}


def _time(session: Any, inputs: Inputs, *, calls: int) -> tuple[float, list[float]]:
    each = []
    start = time.process_time()
    for _ in range(calls):
        begun = time.perf_counter()
        session.run(None, inputs)
        each.append(time.perf_counter() - begun)
    return time.process_time() - start, each
