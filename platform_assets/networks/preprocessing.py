"""What is fitted on the training rows before the network sees them: medians, scales, quantile bins, vocabularies.

The fitted values are data (preprocessing.json). `encoding` turns them into the first layer of the network and `export`
into the first nodes of the ONNX graph, so a row scored alone is treated exactly as a row of the training set.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from platform_assets.networks.rows import floats, images, texts
from platform_assets.networks.shards import read_pieces, read_shard_list
from platform_assets.networks.tokens import MAX_TOKENS, VOCABULARY, Tokeniser, WordCounts

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from platform_assets.networks.shards import Shard
    from platform_assets.specs.records import FeatureSchema

BINS = 12  # quantile bins a number: more did not help on the real hotels, fewer lost 0.004 AUROC
RARE = 20  # a category seen less often than this is treated like one never seen, so that `unknown` is trained
MISSING, UNKNOWN, FIRST = 0, 1, 2
EXACT_ROWS = 524_288  # a quantile of so many rows is off by 0.07 % of the rows at most (one standard deviation, at the median)
COLUMNS_AT_ONCE = 8  # numbers read in one pass over the shards: 16 MB at EXACT_ROWS


@dataclass(frozen=True)
class NumberColumn:
    """A number or date: `edges` are quantiles of the training rows, increasing, at least two."""

    name: str
    is_date: bool
    median: float
    mean: float
    scale: float
    edges: tuple[float, ...]


@dataclass(frozen=True)
class CategoryColumn:
    """A category: index 0 is missing, 1 is unknown, then these values in order."""

    name: str
    values: tuple[str, ...]

    @property
    def size(self) -> int:
        """Count of indices."""
        return FIRST + len(self.values)


@dataclass(frozen=True)
class Preprocessing:
    """Everything fitted; plain JSON through specs.records."""

    numbers: tuple[NumberColumn, ...]
    categories: tuple[CategoryColumn, ...]
    image_size: int
    image_scale: float
    tokeniser: Tokeniser | None = None

    @property
    def offsets(self) -> tuple[int, ...]:
        """First index of each category column in the one table that holds all of them."""
        sizes = [column.size for column in self.categories]
        return tuple(int(start) for start in np.cumsum([0, *sizes])[:-1])


def fit_preprocessing(
    data: Path, *, schema: FeatureSchema, exact_rows: int = EXACT_ROWS, vocabulary: int = VOCABULARY, max_tokens: int = MAX_TOKENS
) -> Preprocessing:
    """Fit on the training split of a training set, a shard and a few columns at a time.

    Quantiles, mean and deviation are of all rows up to `exact_rows`, beyond that of one row drawn from each of so many equal stretches;
    least, greatest and counts of categories are always of all rows. The result depends neither on the length of the shards nor, up to
    `exact_rows`, on the order of the rows. Memory grows with the number of different categories alone. Of texts at most `vocabulary` word
    pieces are learnt, and `max_tokens` are read.
    """
    shards = read_shard_list(data).of("train")
    categories = [feature.name for feature in schema.of_kind("category")]
    counted: list[Counter[str]] = [Counter() for _ in categories]
    greatest = 0.0
    pictures = [feature.name for feature in schema.of_kind("image")]
    passages = tuple(feature.name for feature in schema.of_kind("text"))
    words = WordCounts(max_tokens=max_tokens)
    for table in _pieces(data, shards, columns=[*categories, *pictures, *passages]):
        for name in passages:
            words.add(texts(table[name]))
        for counter, name in zip(counted, categories, strict=True):
            counter.update({entry["values"]: entry["counts"] for entry in pc.value_counts(texts(table[name])).to_pylist()})
        greatest = max(greatest, float(np.abs(images(table, schema=schema)).max(initial=0.0)))
    rows = sum(shard.rows for shard in shards)
    return Preprocessing(
        numbers=tuple(_fit_numbers(data, shards, schema=schema, chosen=_chosen_rows(rows, most=exact_rows))),
        categories=tuple(_fit_category(name, counter, rows=rows) for name, counter in zip(categories, counted, strict=True)),
        image_size=sum(feature.size for feature in schema.of_kind("image")),
        image_scale=greatest or 1.0,
        tokeniser=words.learn(passages, vocabulary=vocabulary, max_tokens=max_tokens) if passages else None,
    )


def _pieces(data: Path, shards: Sequence[Shard], *, columns: list[str]) -> Iterator[pa.Table]:
    for shard in shards if columns else ():
        yield from read_pieces(data, shard, columns=columns)


def _chosen_rows(rows: int, *, most: int) -> NDArray[np.int64]:
    """Give the rows that quantiles are read from, in order: all, or one drawn from each of `most` equal stretches of the split."""
    if rows <= most:
        return np.arange(rows)
    return np.floor((np.arange(most) + np.random.default_rng(most).random(most)) * (rows / most)).astype(np.int64)


def _fit_numbers(data: Path, shards: Sequence[Shard], *, schema: FeatureSchema, chosen: NDArray[np.int64]) -> Iterator[NumberColumn]:
    numbers = schema.of_kind("numeric", "date")
    for first in range(0, len(numbers), COLUMNS_AT_ONCE):
        group = numbers[first : first + COLUMNS_AT_ONCE]
        values = np.empty((len(group), len(chosen)), np.float32)
        ends = np.full((2, len(group)), np.nan, np.float32)
        start = 0
        for table in _pieces(data, shards, columns=[feature.name for feature in group]):
            low, high = np.searchsorted(chosen, [start, start + table.num_rows])
            for place, feature in enumerate(group):
                column = floats(table[feature.name])
                values[place, low:high] = column[chosen[low:high] - start]
                known = column[np.isfinite(column)]
                if known.size:
                    ends[0, place] = np.fmin(ends[0, place], known.min())
                    ends[1, place] = np.fmax(ends[1, place], known.max())
            start += table.num_rows
        for place, feature in enumerate(group):
            yield _fit_number(feature.name, values[place], ends=ends[:, place], is_date=feature.kind == "date")


def _fit_number(name: str, column: NDArray[np.float32], *, ends: NDArray[np.float32], is_date: bool) -> NumberColumn:
    known = np.sort(column[np.isfinite(column)]).astype(np.float64)
    if known.size == 0:
        return NumberColumn(name, is_date, 0.0, 0.0, 1.0, (0.0, 1.0))
    least, greatest = ends.astype(np.float64)
    edges = np.unique([least, *np.quantile(known, np.linspace(0, 1, BINS + 1)[1:-1]), greatest])
    if len(edges) == 1:
        edges = np.array([edges[0], edges[0] + 1.0])
    deviation = float(known.std())
    return NumberColumn(name, is_date, float(np.median(known)), float(known.mean()), deviation or 1.0, tuple(edges.tolist()))


def _fit_category(name: str, counted: Counter[str], *, rows: int) -> CategoryColumn:
    # A small training set has no value above the usual bar: there the bar sinks with the number of rows.
    bar = min(RARE, 1 + rows // 100)
    kept = [(count, value) for value, count in counted.items() if count >= bar and value]
    return CategoryColumn(name, tuple(value for _, value in sorted(kept, key=lambda entry: (-entry[0], entry[1]))))


def category_ids(columns: Sequence[pa.Array], *, preprocessing: Preprocessing) -> NDArray[np.int64]:
    """Look categories up: int64 [N, Dc], each column moved by its offset in the common table."""
    ids = [
        _look_up(column, fitted.values) + offset
        for column, fitted, offset in zip(columns, preprocessing.categories, preprocessing.offsets, strict=True)
    ]
    return np.stack(ids, axis=1) if ids else np.empty((0, 0), np.int64)


def _look_up(column: pa.Array, values: tuple[str, ...]) -> NDArray[np.int64]:
    found = pc.fill_null(pc.index_in(column, value_set=pa.array(values, pa.string())), UNKNOWN - FIRST)
    ids = found.to_numpy(zero_copy_only=False).astype(np.int64) + FIRST
    return np.where(pc.equal(column, "").to_numpy(zero_copy_only=False), MISSING, ids)
