"""Reads the files of a training set into arrays, in the column order of the model's interface.

Nothing is fitted here: category values are looked up in a vocabulary that `preprocessing` made.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from platform_assets.errors import DataError
from platform_assets.networks.shards import read_pieces, read_shard, read_shard_list

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from platform_assets.networks.shards import Shard
    from platform_assets.specs.records import FeatureSchema

MICROSECONDS_A_DAY = 86_400_000_000


@dataclass(frozen=True)
class Rows:
    """Rows of one split as the exported model takes them: raw, with NaN and "" where a value is missing.

    `numeric` float32 [N, Dn], `categorical` one string array a column, `image` float32 [N, size], `labels` int64 [N],
    `text` one string array a text column.
    """

    numeric: NDArray[np.float32]
    categorical: tuple[pa.Array, ...]
    image: NDArray[np.float32]
    labels: NDArray[np.int64]
    text: tuple[pa.Array, ...] = ()

    def __len__(self) -> int:
        """Count rows."""
        return len(self.labels)

    def strings(self) -> NDArray[np.object_]:
        """Return categories as the object array [N, Dc] that onnxruntime takes."""
        return _objects(self.categorical, rows=len(self))

    def passages(self) -> NDArray[np.object_]:
        """Return texts as the object array [N, Dt] that onnxruntime takes."""
        return _objects(self.text, rows=len(self))


def read_rows(folder: Path, split: str, *, schema: FeatureSchema) -> Rows:
    """Read one split whole; a class that the schema does not list, or an empty split, raises DataError."""
    wanted = [*(feature.name for feature in schema.features), schema.target]
    tables = [read_shard(folder, shard, columns=wanted) for shard in read_shard_list(folder).of(split)]
    return to_rows(pa.concat_tables(tables), schema=schema, where=folder / split)


def read_shard_rows(folder: Path, shard: Shard, *, schema: FeatureSchema) -> Iterator[Rows]:
    """Read one shard a piece at a time; a class that the schema does not list raises DataError."""
    wanted = [*(feature.name for feature in schema.features), schema.target]
    for piece in read_pieces(folder, shard, columns=wanted):
        yield to_rows(piece, schema=schema, where=folder / shard.path)


def to_rows(table: pa.Table, *, schema: FeatureSchema, where: Path) -> Rows:
    """Turn a table of a training set into arrays; a class that the schema does not list raises DataError that names `where`."""
    numbers = [floats(table[feature.name]) for feature in schema.of_kind("numeric", "date")]
    return Rows(
        numeric=np.stack(numbers, axis=1) if numbers else np.empty((table.num_rows, 0), np.float32),
        categorical=tuple(texts(table[feature.name]) for feature in schema.of_kind("category")),
        image=images(table, schema=schema),
        labels=_labels(table[schema.target], schema=schema, where=where),
        text=tuple(texts(table[feature.name]) for feature in schema.of_kind("text")),
    )


def floats(column: pa.ChunkedArray) -> NDArray[np.float32]:
    """Read a number or date as float32 [N], NaN where it is missing; a date in days since 1970-01-01."""
    if pa.types.is_timestamp(column.type):
        micros = pc.cast(pc.cast(column, pa.timestamp("us")), pa.int64())
        return (pc.cast(micros, pa.float64(), safe=False).to_numpy() / MICROSECONDS_A_DAY).astype(np.float32)
    return pc.cast(column, pa.float64()).to_numpy().astype(np.float32)


def texts(column: pa.ChunkedArray) -> pa.Array:
    """Read a category or a text as strings, "" where it is missing."""
    filled = pc.fill_null(pc.cast(column, pa.string()), "").combine_chunks()
    return pa.concat_arrays(filled.chunks) if isinstance(filled, pa.ChunkedArray) else filled


def images(table: pa.Table, *, schema: FeatureSchema) -> NDArray[np.float32]:
    """Read the images side by side: float32 [N, sum of sizes]."""
    parts = [
        pc.list_flatten(table[feature.name]).to_numpy().astype(np.float32).reshape(table.num_rows, feature.size)
        for feature in schema.of_kind("image")
    ]
    return np.concatenate(parts, axis=1) if parts else np.empty((table.num_rows, 0), np.float32)


def _objects(columns: tuple[pa.Array, ...], *, rows: int) -> NDArray[np.object_]:
    plain = [column.to_numpy(zero_copy_only=False) for column in columns]
    return np.stack(plain, axis=1).astype(object) if plain else np.empty((rows, 0), dtype=object)


def _labels(column: pa.ChunkedArray, *, schema: FeatureSchema, where: Path) -> NDArray[np.int64]:
    index = pc.index_in(pc.cast(column, pa.string()), value_set=pa.array(schema.classes))
    if index.null_count:
        found = sorted(set(pc.unique(pc.cast(column, pa.string())).to_pylist()) - set(schema.classes), key=str)
        raise DataError(f"{where}: {schema.target} holds {found[:5]}, but the schema's classes are {list(schema.classes)}")
    return index.to_numpy().astype(np.int64)
