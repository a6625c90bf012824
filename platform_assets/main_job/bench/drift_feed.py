"""Area `drift`: faults put into shuffled windows of real bookings, and what is said of windows that hold none."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from platform_assets.main_job.bench.core import Row, describe_row, judge_row, measured
from platform_assets.main_job.bench.drift import STREAMS, read_stream
from platform_assets.stages.monitoring.feed import FeedPast, find_faults, remember_feed

if TYPE_CHECKING:
    from rich.console import Console

    from platform_assets.stages.replay.stream import Stream

_ROWS = 2000
_BLOCKS = 10  # of a window each, that the past is remembered from
_MUST_TOLD, _MUST_ALARMS = 0.90, 0.01
FAULTS = ("unit change", "stuck sensor", "shifted column", "duplicated batch")
# A hundredfold of nearly always nothing is nearly always nothing: what cannot be seen is not asked for.
_SPARSE = 0.5


def measure(*, quick: bool, console: Console) -> list[Row]:
    """Return the share of broken windows that are told apart, each kind, and of healthy ones that are called broken."""
    del quick
    console.print("breaking feeds")
    stream = read_stream("hotel_bookings")
    rng = np.random.default_rng(7)
    values = stream.values[rng.permutation(len(stream.values))]
    past, seconds = _remember(stream, values[: _BLOCKS * _ROWS], _ROWS), 0.0
    rows = []
    windows = [values[start : start + _ROWS] for start in range(_BLOCKS * _ROWS, len(values) - _ROWS + 1, _ROWS)]
    amounts = tell_amounts(stream, values)
    for fault in FAULTS:
        told = []
        for window in windows:
            with measured() as spent:
                found = find_faults(past, _columns(stream, break_feed(fault, window, amounts, rng=rng)))
            told.append(bool(found))
            seconds += spent.cpu_seconds
        name = f"broken feed told apart, {fault}, {len(windows)} windows of {_ROWS} rows"
        rows.append(judge_row(name, value=round(float(np.mean(told)), 4), unit="share", must=_MUST_TOLD, better="higher"))
    for size in (1000, 5000):
        past = _remember(stream, values[: _BLOCKS * size], size)
        healthy = [values[start : start + size] for start in range(_BLOCKS * size, len(values) - size + 1, size)]
        share = float(np.mean([bool(find_faults(past, _columns(stream, window))) for window in healthy]))
        name = f"shuffled and whole, called broken, {len(healthy)} windows of {size} rows"
        rows.append(judge_row(name, value=round(share, 4), unit="share", must=_MUST_ALARMS, better="lower"))
    flags = []
    for name in STREAMS:
        ordered = read_stream(name)
        past = _remember(ordered, ordered.rows(0, ordered.history_windows)[0], ordered.window_rows)
        flags += [bool(find_faults(past, _columns(ordered, ordered.rows(at)[0]))) for at in range(ordered.history_windows, ordered.windows)]
    name = f"in order of time and whole, called broken, {len(flags)} windows of three streams"
    rows.append(judge_row(name, value=round(float(np.mean(flags)), 4), unit="share", must=_MUST_ALARMS, better="lower"))
    each = round(seconds / len(windows) / len(FAULTS) * 1000, 2)
    return [*rows, describe_row(f"check of {_ROWS} rows x {len(stream.columns)} columns, CPU", value=each, unit="ms")]


def tell_amounts(stream: Stream, values: np.ndarray) -> list[int]:
    """Return the columns that a fault can be seen in: amounts that are mostly not zero."""
    past = _remember(stream, values[: _BLOCKS * _ROWS], _ROWS)
    places = [stream.columns.index(column.name) for column in past.columns if column.quantiles]
    return [place for place in places if np.mean(values[:, place] != 0) > _SPARSE]


def break_feed(fault: str, window: np.ndarray, amounts: list[int], *, rng: np.random.Generator) -> np.ndarray:
    """Return a window with one fault in it: a hundredfold in 2 % of rows, a stuck value, two columns changed over, a half twice."""
    broken, (one, other) = window.copy(), rng.choice(amounts, 2, replace=False)
    half = len(window) // 2
    if fault == "unit change":
        broken[rng.choice(len(window), len(window) // 50, replace=False), one] *= 100
    elif fault == "stuck sensor":
        broken[half:, one] = broken[half, one]
    elif fault == "shifted column":
        broken[:, [one, other]] = broken[:, [other, one]]
    else:
        broken[half : 2 * half] = broken[:half]
    return broken


def _remember(stream: Stream, values: np.ndarray, size: int) -> FeedPast:
    return remember_feed(_columns(stream, values), window_rows=size, categories=[stream.columns[place] for place in stream.categories])


def _columns(stream: Stream, values: np.ndarray) -> dict[str, np.ndarray]:
    return dict(zip(stream.columns, values.T, strict=True))
