"""The prediction log's segments as a table, windows of it, and the labels that become known later. Writing the log is serving's."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from platform_assets.errors import DataError
from platform_assets.stages.monitoring.drift import Window

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import pyarrow as pa

    from platform_assets.specs.records import Feature, FeatureSchema

_TEXTS = ("prediction_id", "request_id", "model", "version", "digest", "key", "inputs", "label")
_TIMES = ("time", "event_time")


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
    import pyarrow as pa

    inputs = [json.loads(text) for text in log["inputs"].to_pylist()]
    columns = {feature.name: _column([row.get(feature.name) for row in inputs], feature) for feature in schema.features}
    return pa.table({**columns, schema.event_time: log["event_time"]})


def stack_probabilities(log: pa.Table) -> np.ndarray:
    """Return the logged probabilities, float64 [rows, classes]."""
    return np.array(log["probabilities"].to_pylist(), dtype=np.float64)


def in_order(log: pa.Table) -> pa.Table:
    """Return a log in order of event, then of answer: the order in which windows are cut."""
    return log.sort_by([("event_time", "ascending"), ("time", "ascending"), ("prediction_id", "ascending")])


def cut_windows(log: pa.Table, *, window_rows: int, done: int = 0) -> Iterator[tuple[Window, pa.Table]]:
    """Yield every full window of `window_rows` rows in order of event (then of answer), from window number `done` on.

    A row that comes in late shifts the windows after it; those already reported stay as they are.
    """
    ordered = in_order(log)
    for index in range(done, ordered.num_rows // window_rows):
        rows = ordered.slice(index * window_rows, window_rows)
        versions = tuple(dict.fromkeys(rows["version"].to_pylist()))
        yield Window(index, index * window_rows, (index + 1) * window_rows - 1, versions), rows


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
    return pa.array([None if value is None else float(value) for value in values], pa.float64())
