"""Rows of a `:predict` request that came as an Arrow IPC stream, read by nanoarrow (1 MB; pyarrow would be 150)."""

from __future__ import annotations

import math
from datetime import date
from typing import Any

from platform_assets.errors import RequestError, ServingError
from platform_assets.stages.serving.columns import MAX_ROWS

STREAM = b"application/vnd.apache.arrow.stream"


def read_stream(body: bytes) -> list[dict[str, Any]]:
    """Rows of named columns; nulls and NaN are missing, times as ISO 8601. RequestError where it is no stream of at least one row."""
    try:
        import nanoarrow  # when the first such request comes: it costs 0.1 s
    except ModuleNotFoundError as error:
        raise ServingError(
            "this server reads no Arrow streams: nanoarrow is not installed; send JSON, or install the extra `serve`"
        ) from error
    try:
        found = nanoarrow.ArrayStream.from_readable(body).read_all()
        if len(found) > MAX_ROWS:
            raise RequestError(f"the request holds {len(found)} rows; at most {MAX_ROWS} go into one, send several")
        rows = list(found.to_pylist())
    except (RuntimeError, ValueError, NotImplementedError, OverflowError, KeyError) as error:
        raise RequestError(f"the body is not an Arrow IPC stream that can be read here: {error}") from error
    if not rows:
        raise RequestError("the Arrow stream holds no rows; right would be at least one")
    return [{name: _plain(value) for name, value in row.items()} for row in rows]


def _plain(value: Any) -> Any:
    """As JSON would have brought it."""
    if isinstance(value, float):
        return None if math.isnan(value) else value
    if isinstance(value, date):  # datetime, too
        return value.isoformat()
    return value
