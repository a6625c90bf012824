"""Area `drift`: what of production never enters a training set: rows of broken feeds, and that a harmless drift asks for none."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pyarrow as pa

from platform_assets.main_job.bench.core import Row, describe_row, judge_row
from platform_assets.main_job.bench.drift import read_stream
from platform_assets.main_job.bench.drift_feed import FAULTS, break_feed, tell_amounts
from platform_assets.main_job.bench.drift_injected import ROWS, as_table, lay_bed, move_unused, schema_of
from platform_assets.manifests import ReleaseFiles
from platform_assets.specs.model import RetrainingSpec
from platform_assets.specs.record_json import to_json
from platform_assets.stages.monitoring.feed import remember_feed
from platform_assets.stages.monitoring.feed_report import FEED_FILE, extend_feed, faulty_keys, feed_columns, unjudged_keys
from platform_assets.stages.retraining.policy import Evidence, decide

if TYPE_CHECKING:
    from rich.console import Console

    from platform_assets.specs.model import ModelSpec
    from platform_assets.stages.replay.stream import Stream

_BLOCKS = 10  # windows that the healthy feed is remembered from
_WINDOWS, _QUICK_WINDOWS = 40, 2  # of a log, every other one broken
_REST = 500  # rows behind the last full window
_START = np.datetime64("2026-01-01", "us")


def measure(*, quick: bool, console: Console) -> list[Row]:
    """Write a production log with broken windows for each fault, judge it, and tell which of its rows a training set would read."""
    console.print("looking for rows of broken feeds in training sets")
    stream = read_stream("hotel_bookings")
    rng = np.random.default_rng(11)
    values = stream.values[rng.permutation(len(stream.values))]
    amounts = tell_amounts(stream, values[: _BLOCKS * ROWS])
    bundle = _release(stream, values[: _BLOCKS * ROWS])
    model = cast("ModelSpec", SimpleNamespace(monitoring=SimpleNamespace(window_rows=ROWS)))
    entered, told, known, withheld, rest = 0, 0, 0, 0, 0
    windows = _QUICK_WINDOWS if quick else _WINDOWS
    for fault in FAULTS:
        drawn = values[rng.choice(np.arange(_BLOCKS * ROWS, len(values)), windows * ROWS + _REST, replace=False)]
        for window in range(1, windows, 2):
            part = slice(window * ROWS, (window + 1) * ROWS)
            drawn[part] = break_feed(fault, drawn[part], amounts, rng=rng)
        log = _write_log(stream, drawn)
        feed = extend_feed(None, log=log, bundle=bundle, model=model)
        learnt = set(range(len(drawn))) - {int(key) for key in faulty_keys(feed) | unjudged_keys(feed, log=log, window_rows=ROWS)}
        broken = {row for window in range(1, windows, 2) for row in range(window * ROWS, (window + 1) * ROWS)}
        named = {row for one in feed.faults for row in range(one.first_row, one.last_row + 1)}
        entered += len(learnt & broken)
        told += len(learnt & named)
        known += len(broken)
        withheld += windows * ROWS - len(broken) - len(learnt - broken)
        rest += len(learnt & set(range(windows * ROWS, len(drawn))))
    what = f"broken feed, {windows // 2 * len(FAULTS)} windows of {ROWS} rows in logs of the server's form"
    return [
        judge_row(f"{what}: rows of those told apart that enter a training set", value=float(told), unit="rows", must=0.0, better="lower"),
        describe_row("of all broken ones, told apart or not: share that enters", value=round(entered / known, 4), unit="share"),
        judge_row(f"rows behind the last full window ({_REST}) that enter", value=float(rest), unit="rows", must=0.0, better="lower"),
        describe_row("rows of healthy windows that are kept from it", value=round(withheld / known, 4), unit="share"),
        _harmless(stream, quick=quick),
    ]


def _harmless(stream: Stream, *, quick: bool) -> Row:
    """Let the policy decide after every window of a harmless drift that goes on: what it asks for is a retraining on it."""
    bed, count = lay_bed(stream, seed=1), 4 if quick else 20
    reports = tuple(bed.report(move_unused(bed, window), index=window) for window in range(count))
    now = _START.astype(object)
    asked = [decide(Evidence(drift=reports[: upto + 1]), history=[], now=now, spec=RetrainingSpec()).asked for upto in range(count)]
    what = f"harmless drift through {count} windows, reported in {sum(bool(one.moved) for one in reports)}: retrainings asked for"
    return judge_row(what, value=float(sum(asked)), unit="retrainings", must=0.0, better="lower")


def _release(stream: Stream, values: np.ndarray) -> ReleaseFiles:
    """Return what a release holds of a healthy feed."""
    schema = schema_of(stream)
    columns, categories = feed_columns(as_table(stream, values), schema=schema)
    past = remember_feed(columns, window_rows=ROWS, categories=categories)
    return ReleaseFiles("0" * 64, {}, {FEED_FILE: to_json(past).encode(), "schema.json": to_json(schema).encode()})


def _write_log(stream: Stream, values: np.ndarray) -> pa.Table:
    """Return rows as the production log holds them; the key is the number of the row."""
    table = as_table(stream, values)
    columns: list[list[Any]] = [[None if one != one else one for one in table[name].to_pylist()] for name in table.column_names]  # noqa: PLR0124
    moments = pa.array(_START + np.arange(len(values)) * np.timedelta64(1, "s"))
    names = table.column_names
    numbers = [str(place) for place in range(len(values))]
    return pa.table({
        "prediction_id": [number.zfill(9) for number in numbers], "key": numbers, "version": ["bench"] * len(values), "time": moments,
        "event_time": moments, "inputs": [json.dumps(dict(zip(names, row, strict=True))) for row in zip(*columns, strict=True)],
    })  # fmt: skip
