"""Figures of one ONNX file on this CPU: metrics, distance from the teacher, CPU time and latency, batch invariance.

Sessions run as the server runs them: declared threads, no spinning, preprocessing inside the timed graph.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from platform_assets.measures import measure

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from platform_assets.networks.rows import Rows

WARM_UP_CALLS = 20
ROUNDS = 9  # interleaved over the candidates, so that a busy moment of the machine meets them all
CALLS = {1: 120, 32: 24}
RUN_ROWS = 512  # answered at once: a text's attention takes half a megabyte a row
INVARIANCE_ROWS = 64
INVARIANCE = 1e-4  # largest difference in probability between a row alone and in a batch; float32 rounding gives 1e-6


@dataclass(frozen=True)
class Answers:
    """What a file answers on the holdout, against the teacher's torch probabilities."""

    metrics: dict[str, float]
    max_difference: float
    agreement: float
    batch_difference: float


@dataclass(frozen=True)
class Timing:
    """CPU microseconds a row, and latency of one row."""

    cpu_us_b1: float
    cpu_us_b32: float
    latency_ms_p50: float
    latency_ms_p99: float


def open_session(path: Path, *, threads: int) -> Any:
    """Open an onnxruntime session as the server does."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def feeds(rows: Rows) -> dict[str, NDArray[Any]]:
    """Inputs of the model interface, absent ones left out."""
    given = {"numeric": rows.numeric, "categorical": rows.strings(), "image": rows.image, "text": rows.passages()}
    return {name: array for name, array in given.items() if array.shape[1]}


def judge(session: Any, *, rows: Rows, teacher: NDArray[np.float32], kind: str) -> Answers:
    """Answer the holdout and compare: with labels, with the teacher's probabilities [N, C], and row by row with the batch."""
    inputs = feeds(rows)
    found = np.concatenate([session.run(None, _cut(inputs, start, RUN_ROWS))[0] for start in range(0, len(rows), RUN_ROWS)])
    count = min(INVARIANCE_ROWS, len(rows))
    alone = np.concatenate([session.run(None, _cut(inputs, start, 1))[0] for start in range(count)])
    return Answers(
        metrics=measure(rows.labels, probabilities=found, kind=kind),
        max_difference=float(np.abs(found - teacher).max()),
        agreement=float(np.mean(found.argmax(axis=1) == teacher.argmax(axis=1))),
        batch_difference=float(np.abs(alone - found[:count]).max()),
    )


def time_sessions(sessions: dict[str, Any], *, rows: Rows) -> dict[str, Timing]:
    """Time every session in turn, round after round; CPU time is the median over rounds of process CPU time, latency is over all calls."""
    inputs = feeds(rows)
    for session in sessions.values():
        for _ in range(WARM_UP_CALLS):
            session.run(None, _cut(inputs, 0, 1))
    cpu: dict[str, dict[int, list[float]]] = {name: {size: [] for size in CALLS} for name in sessions}
    walls: dict[str, list[float]] = {name: [] for name in sessions}
    for turn in range(ROUNDS):
        for name, session in sessions.items():
            for size, calls in CALLS.items():
                took, each = _time(session, _cut(inputs, turn * size % max(1, len(rows) - size), size), calls=calls)
                cpu[name][size].append(took * 1e6 / (calls * min(size, len(rows))))
                walls[name] += each if size == 1 else []
    return {
        name: Timing(
            cpu_us_b1=float(np.median(cpu[name][1])), cpu_us_b32=float(np.median(cpu[name][32])),
            latency_ms_p50=float(np.quantile(walls[name], 0.5)) * 1e3, latency_ms_p99=float(np.quantile(walls[name], 0.99)) * 1e3,
        )
        for name in sessions
    }  # fmt: skip


def _time(session: Any, inputs: dict[str, NDArray[Any]], *, calls: int) -> tuple[float, list[float]]:
    each = []
    start = time.process_time()
    for _ in range(calls):
        begun = time.perf_counter()
        session.run(None, inputs)
        each.append(time.perf_counter() - begun)
    return time.process_time() - start, each


def _cut(inputs: dict[str, NDArray[Any]], start: int, size: int) -> dict[str, NDArray[Any]]:
    return {name: array[start : start + size] for name, array in inputs.items()}
