"""The files of a training set: each split a folder of Parquet shards of bounded length, listed with their hashes in shards.json.

    train/00000.parquet, train/00001.parquet, ..., calibration/..., holdout/..., schema.json, shards.json

The list is what makes a cache by content possible without reading a shard. Needs pyarrow alone.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from platform_assets.errors import DataError
from platform_assets.specs.record_json import read_record, to_json
from platform_assets.specs.records import FeatureSchema

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

SPLITS = ("train", "calibration", "holdout")
SCHEMA_FILE, LIST_FILE = "schema.json", "shards.json"
MOST_ROWS, MOST_BYTES = 65_536, 64 * 2**20  # of a shard; the bytes are those of its rows when read
PIECES = 8  # row groups of a shard: what is encoded at once


@dataclass(frozen=True)
class Shard:
    """One file of a split: its path inside the training set, its rows, the SHA-256 of its bytes."""

    path: str
    rows: int
    sha256: str


@dataclass(frozen=True)
class ShardList:
    """All shards of a training set, by split, in the order of their rows."""

    splits: dict[str, tuple[Shard, ...]]

    def of(self, split: str) -> tuple[Shard, ...]:
        """Return the shards of one split; a split that is not there or has no rows raises DataError."""
        shards = self.splits.get(split, ())
        if not sum(shard.rows for shard in shards):
            raise DataError(f"the training set has no {split} rows; the history is too short for the declared split")
        return shards


def rows_of_shard(schema: FeatureSchema) -> int:
    """Choose the length of a shard by what a row takes when read: 50 columns give the most, of images in 224 by 224 colours fit 111."""
    wide = {"image": 4, "text": 1024}  # a text's length is a guess; any other value is 8 bytes, and a category not much more
    row_bytes = sum(wide.get(feature.kind, 8) * feature.size for feature in schema.features)
    return max(1, min(MOST_ROWS, MOST_BYTES // max(1, row_bytes)))


def write_training_set(
    folder: Path, parts: Mapping[str, Iterable[pa.Table]], *, schema: FeatureSchema, shard_rows: int | None = None
) -> dict[str, int]:
    """Write each split from a stream of tables, schema.json and shards.json; return the rows of each split.

    No more than one shard and one table of the stream are held. Equal rows in equal order give equal bytes, however the stream cuts them.
    """
    shard_rows = shard_rows or rows_of_shard(schema)
    splits = {name: tuple(_write_split(folder, name, tables, shard_rows=shard_rows)) for name, tables in parts.items()}
    (folder / SCHEMA_FILE).write_text(to_json(schema), encoding="utf-8")
    (folder / LIST_FILE).write_text(to_json(ShardList(splits)), encoding="utf-8")
    return {name: sum(shard.rows for shard in shards) for name, shards in splits.items()}


def read_shard_list(folder: Path) -> ShardList:
    """Read shards.json; a folder without one is no training set and raises DataError."""
    path = folder / LIST_FILE
    if not path.is_file():
        raise DataError(f"a training set needs {LIST_FILE} and {folder} has none; materialise the training set again")
    return read_record(ShardList, path.read_bytes())


def read_schema(folder: Path) -> FeatureSchema:
    """Read schema.json of a training set or a training."""
    return read_record(FeatureSchema, (folder / SCHEMA_FILE).read_bytes())


def read_shard(folder: Path, shard: Shard, *, columns: list[str]) -> pa.Table:
    """Read some columns of one shard; a file that is missing, cut short or lacks a column raises DataError."""
    return pa.concat_tables(read_pieces(folder, shard, columns=columns))


def read_pieces(folder: Path, shard: Shard, *, columns: list[str]) -> Iterator[pa.Table]:
    """Read some columns of one shard a row group at a time; raises as `read_shard` does."""
    path = folder / shard.path
    try:
        with pq.ParquetFile(path) as file:
            if missing := set(columns) - set(file.schema_arrow.names):
                raise DataError(f"{path} lacks the columns {sorted(missing)} that its {SCHEMA_FILE} lists")
            if file.metadata.num_rows != shard.rows:
                raise DataError(
                    f"{path} holds {file.metadata.num_rows} rows, {LIST_FILE} says {shard.rows}; materialise the training set again"
                )
            for group in range(file.num_row_groups):
                yield file.read_row_group(group, columns=columns, use_threads=False)
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(f"{path} is listed in {LIST_FILE} and cannot be read ({error}); materialise the training set again") from error


def _write_split(folder: Path, split: str, tables: Iterable[pa.Table], *, shard_rows: int) -> Iterator[Shard]:
    (folder / split).mkdir(parents=True, exist_ok=True)
    for number, table in enumerate(_cut(tables, rows=shard_rows)):
        name = f"{split}/{number:05d}.parquet"
        plain = table.combine_chunks().replace_schema_metadata(None)
        pq.write_table(plain, folder / name, compression="zstd", compression_level=3, row_group_size=max(1, shard_rows // PIECES))
        with (folder / name).open("rb") as file:
            yield Shard(name, plain.num_rows, hashlib.file_digest(file, "sha256").hexdigest())


def _cut(tables: Iterable[pa.Table], *, rows: int) -> Iterator[pa.Table]:
    """Cut a stream anew into tables of `rows` rows; the last may be shorter, and one without rows is kept as an empty one."""
    held: pa.Table | None = None
    for table in tables:
        held = table if held is None else pa.concat_tables([held, table])
        while held.num_rows > rows:
            yield held.slice(0, rows)
            held = held.slice(rows)
    if held is not None:
        yield held
