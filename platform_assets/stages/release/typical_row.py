"""The row that a release's answers are explained against: of each column what is usual among the training rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    import pyarrow as pa

    from platform_assets.specs.records import Feature, FeatureSchema

TYPICAL_ROW_FILE = "typical_row.json"
_MOST_ROWS = 100_000  # newest ones; a median of more is no better


def find_typical_row(train: Path, *, schema: FeatureSchema) -> dict[str, Any]:
    """Give the median of numbers and dates, the most frequent category, no text, pixels' means, as a caller would send them."""
    import pyarrow.parquet as pq

    row = {}
    for feature in schema.features:
        column = pq.read_table(train, columns=[feature.name])[feature.name]
        row[feature.name] = _typical(column.slice(max(0, len(column) - _MOST_ROWS)), feature)
    return row


def _typical(column: pa.ChunkedArray, feature: Feature) -> Any:
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    if feature.kind == "text":
        return None
    if feature.kind == "category":
        counts = pc.value_counts(column.cast(pa.string()).drop_null()).to_pylist()
        return min(counts, key=lambda one: (-one["counts"], one["values"]), default={"values": None})["values"]
    if feature.kind == "image":
        pixels = np.asarray(column.combine_chunks().flatten(), np.float64).reshape(-1, feature.size)
        return pixels.mean(axis=0).tolist() if len(pixels) else [0.0] * feature.size
    if feature.kind == "date":
        middle = pc.quantile(column.cast(pa.timestamp("us")).cast(pa.int64()).drop_null(), q=0.5, interpolation="lower")[0].as_py()
        return None if middle is None else pa.scalar(middle, pa.timestamp("us")).as_py().isoformat()
    numbers = np.asarray(column.cast(pa.float64()).drop_null(), np.float64)
    numbers = numbers[np.isfinite(numbers)]
    return float(np.median(numbers)) if len(numbers) else None
