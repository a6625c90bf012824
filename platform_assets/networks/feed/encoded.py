"""Encoded splits: each shard turned into rows as the network takes them, kept in the node's cache and mapped from there.

Private memory holds a few thousand rows while they are encoded and nothing of those that are in the cache; mapped pages belong to the
page cache.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
import pyarrow as pa
import torch

from platform_assets.errors import DataError
from platform_assets.networks.feed.layout import Layout
from platform_assets.networks.preprocessing import Preprocessing, category_ids, fit_preprocessing
from platform_assets.networks.rows import read_shard_rows
from platform_assets.networks.shards import SPLITS, read_shard_list
from platform_assets.networks.tokens import MAX_TOKENS, VOCABULARY, encode_texts
from platform_assets.specs.record_json import read_record, to_json

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

    from platform_assets.networks.feed.cache import ShardCache
    from platform_assets.networks.feed.protocol import Batch
    from platform_assets.networks.rows import Rows
    from platform_assets.networks.shards import Shard
    from platform_assets.specs.records import FeatureSchema

_VERSION = 1  # of fitting and encoding: raise it when either gives other values, so that no older entry is found
_PIECE = 65_536


@dataclass(frozen=True)
class EncodedSplit:
    """One split, mapped: `parts` are rows uint8 [n, layout.row_bytes] in the order of the training set."""

    layout: Layout
    parts: tuple[Tensor, ...]

    @property
    def rows(self) -> int:
        """Count rows."""
        return sum(len(part) for part in self.parts)

    def labels(self) -> NDArray[np.int64]:
        """Return the class of every row: int64 [N], in memory."""
        return np.concatenate([batch[-1].numpy() for batch in self.chunks(_PIECE)])

    def chunks(self, size: int) -> Iterator[Batch]:
        """Give the rows in order, at most `size` at a time."""
        for part in self.parts:
            for start in range(0, len(part), size):
                yield self.layout.unpack(part[start : start + size])

    def take(self, rows: NDArray[np.int64]) -> Batch:
        """Give the rows with these ascending numbers, in memory."""
        return self.layout.unpack(torch.from_numpy(self.read(rows, out=np.empty((len(rows), self.layout.row_bytes), np.uint8))))

    def read(self, rows: NDArray[np.int64], *, out: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Copy the rows with these ascending numbers into `out`, uint8 [n, row_bytes]."""
        start = 0
        for part in self.parts:
            low, high = np.searchsorted(rows, [start, start + len(part)])
            # `clip` writes straight into `out`; the usual mode fills a buffer first.
            np.take(part.numpy(), rows[low:high] - start, axis=0, out=out[low:high], mode="clip")
            start += len(part)
        return out


def fit_once(
    data: Path, *, schema: FeatureSchema, cache: ShardCache, vocabulary: int = VOCABULARY, max_tokens: int = MAX_TOKENS
) -> Preprocessing:
    """Fit the preprocessing of a training set, or take it from the cache: several ranks on one node fit it once."""
    shards = read_shard_list(data).of("train")

    def write(file: BinaryIO) -> None:
        file.write(to_json(fit_preprocessing(data, schema=schema, vocabulary=vocabulary, max_tokens=max_tokens)).encode())

    text = [vocabulary, max_tokens] if schema.of_kind("text") else []
    return cache.fetch(
        _key("fit", *shards, schema=schema, more=text), write=write, read=lambda path: read_record(Preprocessing, path.read_bytes())
    )


def encode_splits(
    data: Path, *, schema: FeatureSchema, preprocessing: Preprocessing, cache: ShardCache, rank: int = 0, world: int = 1
) -> dict[str, EncodedSplit]:
    """Encode and map every split, a shard at a time; shards that the cache has are not read.

    Ranks begin at different shards, so that on one node each is encoded once and by all. Raises DataError for a set that the cache
    cannot hold, and as `read_rows` does.
    """
    layout = Layout.of(preprocessing, classes=len(schema.classes))
    listed = read_shard_list(data)
    needed = sum(shard.rows for split in SPLITS for shard in listed.of(split)) * layout.row_bytes
    if needed > cache.limit_bytes:
        raise DataError(
            f"the encoded training set takes {needed:,} bytes and the shard cache may hold {cache.limit_bytes:,}; "
            "raise storage.cache of the compute profile"
        )
    encoder = _Encoder(data=data, schema=schema, preprocessing=preprocessing, layout=layout, cache=cache)
    splits = {split: EncodedSplit(layout, encoder.map_all(listed.of(split), first=rank / world)) for split in SPLITS}
    pa.default_memory_pool().release_unused()  # 10 to 20 MB that reading took and training has no use for
    return splits


@dataclass(frozen=True, kw_only=True)
class _Encoder:
    data: Path
    schema: FeatureSchema
    preprocessing: Preprocessing
    layout: Layout
    cache: ShardCache

    def map_all(self, shards: tuple[Shard, ...], *, first: float) -> tuple[Tensor, ...]:
        begin = int(first * len(shards))
        mapped = {shard: self._map(shard) for shard in (*shards[begin:], *shards[:begin])}
        return tuple(mapped[shard] for shard in shards)

    def _map(self, shard: Shard) -> Tensor:
        def write(file: BinaryIO) -> None:
            pieces = read_shard_rows(self.data, shard, schema=self.schema)
            file.writelines(self.layout.pack(to_arrays(rows, preprocessing=self.preprocessing)).data for rows in pieces)

        def read(path: Path) -> Tensor:
            size = shard.rows * self.layout.row_bytes
            if path.stat().st_size != size:
                raise DataError(f"{path} holds {path.stat().st_size} bytes where {size} are right; delete it, it is made anew")
            return torch.from_file(str(path), shared=False, size=size, dtype=torch.uint8).view(shard.rows, self.layout.row_bytes)

        return self.cache.fetch(_key("rows", shard, schema=self.schema, preprocessing=self.preprocessing), write=write, read=read)


def to_arrays(rows: Rows, *, preprocessing: Preprocessing) -> tuple[NDArray[np.float32] | NDArray[np.int64] | NDArray[np.int32], ...]:
    """Turn rows into the arrays of a batch: numeric, ids, image, where there is text its tokens, target."""
    ids = category_ids(rows.categorical, preprocessing=preprocessing) if rows.categorical else np.empty((len(rows), 0), np.int64)
    text = preprocessing.tokeniser
    tokens = (encode_texts(rows.text, tokeniser=text),) if text is not None else ()
    return rows.numeric, ids, rows.image, *tokens, rows.labels


def _key(what: str, *shards: Shard, schema: FeatureSchema, preprocessing: Preprocessing | None = None, more: Sequence[int] = ()) -> str:
    parts = [
        _VERSION,
        what,
        list(more),
        [[shard.sha256, shard.rows] for shard in shards],
        to_json(schema),
        preprocessing and to_json(preprocessing),
    ]
    return hashlib.sha256(to_json(parts).encode()).hexdigest()
