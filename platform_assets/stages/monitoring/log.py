"""The prediction log's segments as a table, windows of it, and the labels that become known later. Writing the log is serving's."""

from __future__ import annotations

import json
from bisect import bisect_right
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from platform_assets.errors import DataError
from platform_assets.specs.feed import FeedReport, WindowEnd
from platform_assets.stages.monitoring.drift import Window

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import pyarrow as pa

    from platform_assets.specs.records import Feature, FeatureSchema

_TEXTS = ("prediction_id", "request_id", "model", "version", "digest", "key", "inputs", "label")
_TIMES = ("time", "event_time")
_NEVER = 2**63 - 1


def parse_segments(segments: Sequence[Path]) -> pa.Table:
    """Read segments of all writers (one JSON object a line) into one table, by time; a torn last line is left out, a bad one a DataError.

    Columns: prediction_id, request_id, model, version, digest, key (text), time and event_time (timestamp us), inputs (JSON text),
    label (the predicted class), probabilities (list of double, in the order of the schema's classes, as the server writes them), actual
    (the outcome, null until `attach_labels` finds it).
    """
    import pyarrow as pa

    rows = [row for segment in segments for row in _read(segment)]
    fields = (
        [(name, pa.string()) for name in _TEXTS]
        + [(name, pa.timestamp("us")) for name in _TIMES]
        + [("probabilities", pa.list_(pa.float64())), ("actual", pa.string())]
    )
    return pa.Table.from_pylist(rows, schema=pa.schema(fields)).sort_by("time")  # stable: equal times stay as their writer had them


def unpack_inputs(log: pa.Table, *, schema: FeatureSchema) -> pa.Table:
    """Return the logged inputs as plain feature columns (double, string, timestamp, list) and the event time."""
    import orjson
    import pyarrow as pa

    inputs = [orjson.loads(text) for text in log["inputs"].to_pylist()]
    columns = {feature.name: _column([row.get(feature.name) for row in inputs], feature) for feature in schema.features}
    return pa.table({**columns, schema.event_time: log["event_time"]})


def stack_probabilities(log: pa.Table) -> np.ndarray:
    """Return the logged probabilities, float64 [rows, classes]."""
    return np.array(log["probabilities"].to_pylist(), dtype=np.float64)


def in_order(log: pa.Table) -> pa.Table:
    """Return a log in order of event, then of answer: the order in which windows are cut."""
    return log.sort_by([("event_time", "ascending"), ("time", "ascending"), ("prediction_id", "ascending")])


def cut_windows(log: pa.Table, *, window_rows: int, feed: FeedReport = FeedReport()) -> Iterator[tuple[Window, pa.Table]]:  # noqa: B008  (frozen)
    """Yield every window that was judged, with what is left of its rows, then every further full one, in order of event, then of answer.

    A window is the same rows for ever: what is erased is missing from it, and what comes in late goes into the next one.
    """
    ordered = in_order(log)
    numbers = number_rows(ordered, window_rows=window_rows, feed=feed)
    rest = np.flatnonzero(numbers < 0)
    judged = [np.flatnonzero(numbers == index) for index in range(feed.windows)]
    further = [rest[start : start + window_rows] for start in range(0, len(rest) - window_rows + 1, window_rows)]
    for index, places in enumerate([*judged, *further]):
        rows = ordered.take(places)
        versions = tuple(dict.fromkeys(rows["version"].to_pylist()))
        yield Window(index, index * window_rows, (index + 1) * window_rows - 1, versions), rows


def number_rows(ordered: pa.Table, *, window_rows: int, feed: FeedReport) -> np.ndarray:
    """Return the judged window that each row of a log (`in_order`) was in, -1 of those that were in none.

    A window took what had been answered by then, was in no earlier one, and stood up to its end.
    """
    events, times = (_microseconds(ordered[name]) for name in ("event_time", "time"))
    numbers = np.full(ordered.num_rows, -1)
    by_position = len(feed.seen_until) - len(feed.ends)
    for index, seen in enumerate(feed.seen_until):
        there = times <= np.datetime64(seen, "us").astype(np.int64)
        if index < by_position:
            places = np.flatnonzero(there)[index * window_rows : (index + 1) * window_rows]
        else:
            there[_behind(feed.ends[index - by_position], ordered, events, times) :] = False
            places = np.flatnonzero(there)
        numbers[places[numbers[places] < 0]] = index
    return numbers


def end_of(rows: pa.Table) -> WindowEnd:
    """Return where a window of at least one row ends."""
    last = rows.slice(rows.num_rows - 1)
    event, time = (int(_microseconds(last[name])[0]) for name in ("event_time", "time"))
    return WindowEnd(event, time, last["prediction_id"][0].as_py())


def _behind(end: WindowEnd, ordered: pa.Table, events: np.ndarray, times: np.ndarray) -> int:
    """Return how many rows of an ordered log stand up to an end."""
    ids = ordered["prediction_id"]
    key = (end.event, end.time, end.prediction_id)
    return bisect_right(range(len(events)), key, key=lambda place: (events[place], times[place], ids[place].as_py()))


def _microseconds(column: pa.ChunkedArray) -> np.ndarray:
    """Times as whole microseconds; none sorts last, as in the log."""
    import pyarrow as pa

    return np.asarray(column.cast(pa.timestamp("us")).cast(pa.int64()).fill_null(_NEVER).to_numpy(), np.int64)


def attach_labels(log: pa.Table, known: pa.Table, *, key: str, label: str) -> pa.Table:
    """Return the rows of the log whose outcome was not known and now is, `actual` filled from `known` (columns `key` and `label`)."""
    import pyarrow as pa
    import pyarrow.compute as pc

    waiting = log.filter(pc.is_null(log["actual"]))
    outcomes = {
        str(name): _as_class(value)
        for name, value in zip(known[key].to_pylist(), known[label].to_pylist(), strict=True)
        if value is not None
    }
    actual = pa.array([outcomes.get(name) for name in waiting["key"].to_pylist()], pa.string())
    filled = waiting.set_column(waiting.column_names.index("actual"), "actual", actual)
    return filled.filter(pc.is_valid(actual))


def labelled_after(log: pa.Table, *, schema: FeatureSchema, after: datetime | None) -> pa.Table:
    """Return features, target and event time of logged rows whose outcome is known and whose event is later, in order of event."""
    import pyarrow.compute as pc

    known = pc.is_valid(log["actual"])
    rows = log.filter(known if after is None else pc.and_kleene(known, pc.greater(log["event_time"], after)))
    rows = rows.sort_by([("event_time", "ascending"), ("prediction_id", "ascending")])
    return unpack_inputs(rows, schema=schema).append_column(schema.target, rows["actual"])


def _as_class(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _read(segment: Path) -> Iterator[dict[str, Any]]:
    import orjson

    lines = segment.read_bytes().split(b"\n")
    for number, line in enumerate(lines, start=1):
        if not line:
            continue
        try:
            yield _row(orjson.loads(line))
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
            if number == len(lines):
                return  # no newline after it: the writer was killed inside this line
            raise DataError(
                f"{segment}: line {number} is not a logged prediction ({error}); move the segment away to go on without it"
            ) from error


def _row(line: dict[str, Any]) -> dict[str, Any]:
    shares = line["probabilities"]
    texts = {name: None if line[name] is None else str(line[name]) for name in _TEXTS if name != "inputs"}
    return {
        **texts,
        "inputs": json.dumps(line["inputs"], sort_keys=True, separators=(",", ":")),
        "time": _parse_time(line["time"]),
        "event_time": _parse_time(line["event_time"]),
        "probabilities": list(shares.values()) if isinstance(shares, dict) else shares,
    }


def _parse_time(text: str | None) -> datetime | None:
    if text is None:
        return None
    at = datetime.fromisoformat(text)
    return at.astimezone(UTC).replace(tzinfo=None) if at.tzinfo is not None else at


def _column(values: list[Any], feature: Feature) -> pa.Array:
    import pyarrow as pa

    if feature.kind == "date":
        return pa.array([_parse_time(value) for value in values], pa.timestamp("us"))
    if feature.kind in ("category", "text"):
        return pa.array([str(value).lower() if isinstance(value, bool) else value for value in values], pa.string())
    if feature.kind == "image":
        return pa.array(values, pa.list_(pa.float64()))
    try:
        return pa.array(values, pa.float64())
    except pa.ArrowException:  # texts and truth values, whole numbers beyond 2^53
        return pa.array([None if value is None else float(value) for value in values], pa.float64())
