"""NumPy and text to Arrow and back without `pyarrow.array`, `.scalar` and `.to_numpy`: those import pandas, 0.3 s of every start."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyarrow as pa


def as_arrow(values: np.ndarray) -> pa.Array:
    """Numbers (float32, float64, int32, int64) as an Arrow array over the same memory, where that is dense."""
    import pyarrow as pa

    dense = np.ascontiguousarray(values)
    kind = {"float32": pa.float32(), "float64": pa.float64(), "int32": pa.int32(), "int64": pa.int64()}[dense.dtype.name]
    return pa.Array.from_buffers(kind, len(dense), [None, pa.py_buffer(dense)])


def as_texts(values: Sequence[str]) -> pa.Array:
    """A few texts as an Arrow array."""
    import pyarrow as pa

    encoded = [value.encode() for value in values]
    offsets = np.cumsum([0, *map(len, encoded)], dtype=np.int32)
    return pa.Array.from_buffers(pa.string(), len(encoded), [None, pa.py_buffer(offsets), pa.py_buffer(b"".join(encoded))])


def as_numpy(column: pa.Array, *, missing: float) -> np.ndarray:
    """Numbers as NumPy sees them, `missing` where there is none; no copy where nothing is missing."""
    import pyarrow.compute as pc

    if column.null_count:
        column = pc.fill_null(column, as_arrow(np.array([missing]))[0].cast(column.type))
    values: np.ndarray[Any, Any] = np.from_dlpack(column)
    return values
