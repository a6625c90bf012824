"""Area `drift`: how often windows without a drift alarm, shuffled and in order of time."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from platform_assets.main_job.bench.core import Row, describe_row, judge_row
from platform_assets.main_job.bench.drift import STREAMS, read_stream
from platform_assets.main_job.bench.drift_injected import as_table, importance_of, schema_of
from platform_assets.specs.model import MonitoringSpec
from platform_assets.stages.monitoring.drift import Window, report_window
from platform_assets.stages.monitoring.reference import build_reference
from platform_assets.stages.replay import booster

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console

    from platform_assets.stages.replay.stream import Stream

SIZES = (1000, 5000, 50_000)
WIDTHS = (10, 29, 100)
_WINDOWS, _QUICK_WINDOWS = 100, 10
_MUST = 0.01
_REFERENCE_ROWS = 60_000
_PER_SHUFFLE = 25
_PER_REFERENCE = 20
_RUNS, _PAST = 10, 30  # runs a window, windows of the reference


def measure(*, quick: bool, console: Console) -> list[Row]:
    """Return the share of windows that alarm where nothing drifts: shuffled bookings of each size and width, and dependent rows."""
    console.print("counting false alarms")
    stream = read_stream("hotel_bookings")
    rows = []
    for size in SIZES[: 1 if quick else None]:
        for width in WIDTHS[: 2 if quick else None]:
            windows = _QUICK_WINDOWS if quick else _WINDOWS if size < SIZES[-1] else _PER_SHUFFLE
            alarms = list(_shuffled(stream, size=size, width=width, windows=windows))
            name = f"shuffled, called drifted, {len(alarms)} windows of {size} rows x {width} columns"
            rows.append(judge_row(name, value=round(float(np.mean(alarms)), 4), unit="share", must=_MUST, better="lower"))
    declared, windows = MonitoringSpec().false_alarms, _QUICK_WINDOWS if quick else _WINDOWS
    streams = [read_stream(name) for name in STREAMS]
    flags = [flag for each in streams for flag in _stable(each, windows=windows)]
    name = f"dependent rows that hold still, called drifted, {len(flags)} windows of three streams"
    rows.append(judge_row(name, value=round(float(np.mean(flags)), 4), unit="share", must=declared, better="lower"))
    if not quick:
        flags = [flag for each in streams for flag in _in_order(each)]
        name = f"every other window of three streams against the ones between, called drifted, {len(flags)} windows"
        rows.append(describe_row(name, value=round(float(np.mean(flags)), 4), unit="share"))
    return rows


def widen(values: np.ndarray, width: int, *, rng: np.random.Generator) -> np.ndarray:
    """Return shuffled rows of `width` columns: as many independent shuffles side by side as it takes."""
    copies = -(-width // values.shape[1])
    return np.concatenate([values[rng.permutation(len(values))] for _ in range(copies)], axis=1)[:, :width]


def _shuffled(stream: Stream, *, size: int, width: int, windows: int) -> Iterator[bool]:
    """Yield alarms: every column counts, a reference anew for each 25 windows, windows drawn from the rows that it has not."""
    rng = np.random.default_rng([size, width])
    spec = MonitoringSpec(window_rows=size)
    copies = -(-width // len(stream.columns))
    names = [f"{name}{copy or ''}" for copy in range(copies) for name in stream.columns][:width]
    kinds = [copy * len(stream.columns) + place for copy in range(copies) for place in stream.categories]
    wide = replace(stream, columns=tuple(names), categories=tuple(kind for kind in kinds if kind < width))
    for _ in range(-(-windows // _PER_SHUFFLE)):
        values = widen(stream.values, width, rng=rng)
        reference = build_reference(as_table(wide, values[:_REFERENCE_ROWS]), schema=schema_of(wide), probabilities=None, spec=spec)
        left = values[_REFERENCE_ROWS:]
        for index in range(min(windows, _PER_SHUFFLE)):
            drawn = left[rng.choice(len(left), size, replace=False)]
            report = report_window(
                reference, as_table(wide, drawn), window=Window(index, 0, size - 1, ("bench",)), schema=schema_of(wide),
                probabilities=None, importance=None, spec=spec,
            )  # fmt: skip
            yield report.drifted


def _stable(stream: Stream, *, windows: int) -> Iterator[bool]:
    """Yield alarms on a stream that holds still: runs of rows that follow each other, drawn from the whole of a real one in any order.

    A window is a few runs, so that its rows are as dependent as real ones are: an independent-sample test alarms on most. The reference is
    drawn anew every so many windows: the rate is one over pasts too, and a single past may be lucky.
    """
    rng = np.random.default_rng(7)
    size, run = stream.window_rows, max(1, stream.window_rows // _RUNS)
    spec = MonitoringSpec(window_rows=size)

    def draw(count: int) -> np.ndarray:
        starts = rng.integers(0, len(stream.values) - run, count * _RUNS)
        places = (starts[:, None] + np.arange(run)).reshape(count, -1)
        return np.concatenate([stream.values[each] for each in places])

    for at in range(windows):
        if at % _PER_REFERENCE == 0:
            reference = build_reference(
                as_table(stream, draw(_PAST)), schema=schema_of(stream), probabilities=None, spec=MonitoringSpec(window_rows=run * _RUNS)
            )
        report = report_window(
            reference, as_table(stream, draw(1)), window=Window(at, 0, size - 1, ("bench",)), schema=schema_of(stream),
            probabilities=None, importance=None, spec=spec,
        )  # fmt: skip
        yield report.drifted


def _in_order(stream: Stream) -> Iterator[bool]:
    """Yield alarms of every other window of a real stream against the ones between, both ways round, if a model leans on it."""
    spec = MonitoringSpec(window_rows=stream.window_rows)
    for first in (0, 1):
        past = np.concatenate([stream.rows(at)[0] for at in range(first, stream.windows, 2)])
        importance = _lean(stream, first)
        reference = build_reference(as_table(stream, past), schema=schema_of(stream), probabilities=None, spec=spec, importance=importance)
        for at in range(1 - first, stream.windows, 2):
            report = report_window(
                reference, as_table(stream, stream.rows(at)[0]), window=Window(at, 0, stream.window_rows - 1, ("bench",)),
                schema=schema_of(stream), probabilities=None, importance=importance, spec=spec,
            )  # fmt: skip
            yield report.drifted


def _lean(stream: Stream, first: int) -> dict[str, float]:
    """Return how much a model of every other window leans on each column, measured on the ones between."""
    parts = [[stream.rows(at) for at in range(start, stream.windows, 2)] for start in (first, 1 - first)]
    (values, targets), (unseen, answers) = (tuple(np.concatenate(column) for column in zip(*part, strict=True)) for part in parts)
    if stream.kind == "regression":
        targets, answers = (amounts > np.median(targets) for amounts in (targets, answers))
    model = booster.fit(values, np.asarray(targets, np.float64), kind="binary", classes=2)
    return importance_of(stream, model, unseen, np.asarray(answers, np.float64))
