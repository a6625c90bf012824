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
from platform_assets.specs.records import FeatureSchema, read_record, to_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

SPLITS = ("train", "calibration", "holdout")
SCHEMA_FILE, LIST_FILE = "schema.json", "shards.json"
SHARD_ROWS = 65_536  # of 50 columns about 25 MB when read, so that encoding one fits beside any network


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


def write_training_set(
    folder: Path, parts: Mapping[str, Iterable[pa.Table]], *, schema: FeatureSchema, shard_rows: int = SHARD_ROWS
) -> dict[str, int]:
    """Write each split from a stream of tables, schema.json and shards.json; return the rows of each split.

    No more than one shard and one table of the stream are held. Equal rows in equal order give equal bytes, however the stream cuts them.
    """
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
    path = folder / shard.path
    try:
        table = pq.ParquetFile(path).read(columns=columns)
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(f"{path} is listed in {LIST_FILE} and cannot be read ({error}); materialise the training set again") from error
    if missing := set(columns) - set(table.column_names):
        raise DataError(f"{path} lacks the columns {sorted(missing)} that its {SCHEMA_FILE} lists")
    if table.num_rows != shard.rows:
        raise DataError(f"{path} holds {table.num_rows} rows, {LIST_FILE} says {shard.rows}; materialise the training set again")
    return table


def _write_split(folder: Path, split: str, tables: Iterable[pa.Table], *, shard_rows: int) -> Iterator[Shard]:
    (folder / split).mkdir(parents=True, exist_ok=True)
    for number, table in enumerate(_cut(tables, rows=shard_rows)):
        name = f"{split}/{number:05d}.parquet"
        plain = table.combine_chunks().replace_schema_metadata(None)
        pq.write_table(plain, folder / name, compression="zstd", compression_level=3, row_group_size=shard_rows)
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
