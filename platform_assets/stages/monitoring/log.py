"""The prediction log's segments as a table, windows of it, and the labels that become known later. Writing the log is serving's."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from platform_assets.errors import DataError
from platform_assets.stages.monitoring.drift import Window

if TYPE_CHECKING:
    from pathlib import Path

    import pyarrow as pa

    from platform_assets.specs.records import Feature, FeatureSchema

_TEXTS = ("prediction_id", "request_id", "model", "version", "digest", "key", "inputs", "label")
_TIMES = ("time", "event_time")


def read_segments(segments: Sequence[Path], *, classes: Sequence[str]) -> pa.Table:
    """Read segments (one JSON object a line) into one table, oldest first; a torn last line is left out, any other bad one is a DataError.

    Columns: prediction_id, request_id, model, version, digest, key (text), time and event_time (timestamp us), inputs (JSON text),
    label (the predicted class), probabilities (list of double, in the order of `classes`).
    """
    import pyarrow as pa

    rows = [row for segment in segments for row in _read(segment, tuple(classes))]
    fields = [(name, pa.string()) for name in _TEXTS] + [(name, pa.timestamp("us")) for name in _TIMES] + [("probabilities", pa.list_(pa.float64()))]
    return pa.Table.from_pylist(rows, schema=pa.schema(fields))


def unpack_inputs(log: pa.Table, *, schema: FeatureSchema) -> pa.Table:
    """Return the logged inputs as plain feature columns (numeric double, category string, date timestamp, image list) and the event time."""
    import pyarrow as pa

    inputs = [json.loads(text) for text in log["inputs"].to_pylist()]
    columns = {feature.name: _column([row.get(feature.name) for row in inputs], feature) for feature in schema.features}
    return pa.table({**columns, schema.event_time: log["event_time"]})


def stack_probabilities(log: pa.Table) -> np.ndarray:
    """Return the logged probabilities, float64 [rows, classes]."""
    return np.array(log["probabilities"].to_pylist(), dtype=np.float64)


def cut_windows(log: pa.Table, *, window_rows: int, done: int = 0) -> Iterator[tuple[Window, pa.Table]]:
    """Yield every full window of `window_rows` rows in order of event (then of answer), from window number `done` on.

    A row that comes in late shifts the windows after it; those already reported stay as they are.
    """
    ordered = log.sort_by([("event_time", "ascending"), ("time", "ascending"), ("prediction_id", "ascending")])
    for index in range(done, ordered.num_rows // window_rows):
        rows = ordered.slice(index * window_rows, window_rows)
        versions = tuple(dict.fromkeys(rows["version"].to_pylist()))
        yield Window(index, index * window_rows, (index + 1) * window_rows - 1, versions), rows


def join_labels(log: pa.Table, *, labels: Mapping[str, str]) -> pa.Table:
    """Add `actual`: the known outcome by key, null where it is not known yet."""
    import pyarrow as pa

    return log.append_column("actual", pa.array([labels.get(key) if key is not None else None for key in log["key"].to_pylist()], pa.string()))


def _read(segment: Path, classes: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    import orjson

    lines = segment.read_bytes().split(b"\n")
    for number, line in enumerate(lines, start=1):
        if not line:
            continue
        try:
            yield _row(orjson.loads(line), classes)
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
            if number == len(lines):
                return  # no newline after it: the writer was killed inside this line
            raise DataError(f"{segment}: line {number} is not a logged prediction ({error}); move the segment away to go on without it") from error


def _row(line: dict[str, Any], classes: tuple[str, ...]) -> dict[str, Any]:
    shares = line["probabilities"]
    texts = {name: None if line[name] is None else str(line[name]) for name in _TEXTS if name != "inputs"}
    return {
        **texts,
        "inputs": json.dumps(line["inputs"], sort_keys=True, separators=(",", ":")),
        "time": _parse_time(line["time"]),
        "event_time": _parse_time(line["event_time"]),
        "probabilities": [shares[name] for name in classes] if isinstance(shares, dict) else shares,
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
    if feature.kind == "category":
        return pa.array([str(value).lower() if isinstance(value, bool) else value for value in values], pa.string())
    if feature.kind == "image":
        return pa.array(values, pa.list_(pa.float64()))
    return pa.array([None if value is None else float(value) for value in values], pa.float64())
