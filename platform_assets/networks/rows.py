"""Reads the files of a training set into arrays, in the column order of the model's interface.

Nothing is fitted here: category values are looked up in a vocabulary that `preprocessing` made.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from platform_assets.errors import DataError
from platform_assets.specs.records import FeatureSchema, read_record

if TYPE_CHECKING:
    from numpy.typing import NDArray

SPLITS = ("train", "calibration", "holdout")
MICROSECONDS_A_DAY = 86_400_000_000


@dataclass(frozen=True)
class Rows:
    """Rows of one split as the exported model takes them: raw, with NaN and "" where a value is missing.

    `numeric` float32 [N, Dn], `categorical` one string array a column, `image` float32 [N, size], `labels` int64 [N].
    """

    numeric: NDArray[np.float32]
    categorical: tuple[pa.Array, ...]
    image: NDArray[np.float32]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        """Count rows."""
        return len(self.labels)

    def strings(self) -> NDArray[np.object_]:
        """Return categories as the object array [N, Dc] that onnxruntime takes."""
        columns = [column.to_numpy(zero_copy_only=False) for column in self.categorical]
        return np.stack(columns, axis=1).astype(object) if columns else np.empty((len(self), 0), dtype=object)


def read_schema(folder: Path) -> FeatureSchema:
    """Read schema.json of a training set or a training."""
    return read_record(FeatureSchema, (folder / "schema.json").read_bytes())


def read_rows(folder: Path, split: str, *, schema: FeatureSchema) -> Rows:
    """Read one split; a class that the schema does not list, or an empty split, raises DataError."""
    path = folder / f"{split}.parquet"
    if not path.is_file():
        raise DataError(f"a training set needs {split}.parquet and {folder} has none; materialise the training set again")
    wanted = [feature.name for feature in schema.features]
    table = pq.ParquetFile(path).read(columns=[*wanted, schema.target])
    if missing := set(wanted) - set(table.column_names):
        raise DataError(f"{path} lacks the columns {sorted(missing)} that its schema.json lists")
    if table.num_rows == 0:
        raise DataError(f"{path} has no rows: the history is too short for the declared shares of calibration and holdout")
    numbers = [_floats(table[feature.name]) for feature in schema.of_kind("numeric", "date")]
    return Rows(
        numeric=np.stack(numbers, axis=1) if numbers else np.empty((table.num_rows, 0), np.float32),
        categorical=tuple(_texts(table[feature.name]) for feature in schema.of_kind("category")),
        image=_images(table, schema),
        labels=_labels(table[schema.target], schema=schema, path=path),
    )


def _floats(column: pa.ChunkedArray) -> NDArray[np.float32]:
    if pa.types.is_timestamp(column.type):
        micros = pc.cast(pc.cast(column, pa.timestamp("us")), pa.int64())
        return (pc.cast(micros, pa.float64(), safe=False).to_numpy() / MICROSECONDS_A_DAY).astype(np.float32)
    return pc.cast(column, pa.float64()).to_numpy().astype(np.float32)


def _texts(column: pa.ChunkedArray) -> pa.Array:
    texts = pc.fill_null(pc.cast(column, pa.string()), "").combine_chunks()
    return pa.concat_arrays(texts.chunks) if isinstance(texts, pa.ChunkedArray) else texts


def _images(table: pa.Table, schema: FeatureSchema) -> NDArray[np.float32]:
    parts = [
        pc.list_flatten(table[feature.name]).to_numpy().astype(np.float32).reshape(table.num_rows, feature.size)
        for feature in schema.of_kind("image")
    ]
    return np.concatenate(parts, axis=1) if parts else np.empty((table.num_rows, 0), np.float32)


def _labels(column: pa.ChunkedArray, *, schema: FeatureSchema, path: Path) -> NDArray[np.int64]:
    index = pc.index_in(pc.cast(column, pa.string()), value_set=pa.array(schema.classes))
    if index.null_count:
        found = sorted(set(pc.unique(pc.cast(column, pa.string())).to_pylist()) - set(schema.classes), key=str)
        raise DataError(f"{path}: {schema.target} holds {found[:5]}, but the schema's classes are {list(schema.classes)}")
    return index.to_numpy().astype(np.int64)
