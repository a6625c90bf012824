"""Rows of a `:predict` request and answers to one as Arrow IPC streams, by nanoarrow (1 MB; pyarrow would be 150)."""

from __future__ import annotations

import io
import math
from datetime import date
from typing import TYPE_CHECKING, Any

import numpy as np

from platform_assets.errors import RequestError, ServingError
from platform_assets.stages.serving.arrow_limits import check_not_compressed, check_types, within
from platform_assets.stages.serving.columns import MAX_ROWS

if TYPE_CHECKING:
    from platform_assets.stages.serving.traffic import Arm

STREAM = b"application/vnd.apache.arrow.stream"
_MOST_DECODED = 64 << 20  # bytes of values; a body has at most a quarter of it


def read_stream(body: bytes) -> list[dict[str, Any]]:
    """Rows of named columns; nulls and NaN are missing, times as ISO 8601. RequestError where it is no stream of at least one row."""
    try:
        import nanoarrow  # when the first such request comes: it costs 0.1 s
    except ModuleNotFoundError as error:
        raise ServingError(
            "this server reads no Arrow streams: nanoarrow is not installed; send JSON, or install the extra `serve`"
        ) from error
    check_not_compressed(body)
    try:
        stream = nanoarrow.ArrayStream.from_readable(body)
        check_types(stream.schema)
        found = stream.read_all()
        if len(found) > MAX_ROWS:
            raise RequestError(f"the request holds {len(found)} rows; at most {MAX_ROWS} go into one, send several")
        rows = within(found.iter_py(), size_bytes=_MOST_DECODED)
    except (RuntimeError, ValueError, NotImplementedError, OverflowError, KeyError) as error:
        raise RequestError(f"the body is not an Arrow IPC stream that can be read here: {error}") from error
    if not rows:
        raise RequestError("the Arrow stream holds no rows; right would be at least one")
    return [{name: _plain(value) for name, value in row.items()} for row in rows]


def wants_stream(accept: bytes | None) -> bool:
    """Whether a caller takes an Arrow stream as its answer; ServingError where none can be written here."""
    if accept is None or STREAM not in accept:
        return False
    try:
        import nanoarrow  # noqa: F401 - before rows are answered and logged
    except ModuleNotFoundError as error:
        raise ServingError(
            "this server writes no Arrow streams: nanoarrow is not installed; accept JSON, or install the extra `serve`"
        ) from error
    return True


def write_answers(arm: Arm, request_id: str, found: np.ndarray, shares: list[list[float]]) -> tuple[bytes, bytes]:
    """Body and header lines of a reply: label, its probability and that of every class, a row each, as `falaj predict` writes them."""
    import nanoarrow
    from nanoarrow.ipc import StreamWriter

    bundle = arm.bundle
    columns = {"label": nanoarrow.c_array(bundle.labels(found, shares), nanoarrow.string())}
    columns["probability"] = nanoarrow.c_array(np.ascontiguousarray(found.max(axis=1)))
    for place, name in enumerate(bundle.schema.classes):
        columns[f"probability_{name}"] = nanoarrow.c_array(np.ascontiguousarray(found[:, place]))
    kinds = {name: nanoarrow.string() if name == "label" else nanoarrow.float32() for name in columns}
    rows = nanoarrow.c_array_from_buffers(nanoarrow.struct(kinds), len(found), buffers=[None], children=list(columns.values()))
    sink = io.BytesIO()
    with StreamWriter.from_writable(sink) as writer:
        writer.write_array(rows)
    told = (STREAM, request_id.encode(), bundle.model.encode(), bundle.version.encode())
    return sink.getvalue(), b"content-type: %b\r\nx-request-id: %b\r\nx-model: %b\r\nx-model-version: %b\r\n" % told


def _plain(value: Any) -> Any:
    """As JSON would have brought it."""
    if isinstance(value, float):
        return None if math.isnan(value) else value
    if isinstance(value, date):  # datetime, too
        return value.isoformat()
    return value
