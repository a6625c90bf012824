"""What is fitted on the training rows before the network sees them: medians, scales, quantile bins, vocabularies.

The fitted values are data (preprocessing.json). `encoding` turns them into the first layer of the network and `export`
into the first nodes of the ONNX graph, so a row scored alone is treated exactly as a row of the training set.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from platform_assets.networks.rows import Rows
    from platform_assets.specs.records import FeatureSchema

BINS = 12  # quantile bins a number: more did not help on the real hotels, fewer lost 0.004 AUROC
RARE = 20  # a category seen less often than this is treated like one never seen, so that `unknown` is trained
MISSING, UNKNOWN, FIRST = 0, 1, 2


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

    @property
    def offsets(self) -> tuple[int, ...]:
        """First index of each category column in the one table that holds all of them."""
        sizes = [column.size for column in self.categories]
        return tuple(int(start) for start in np.cumsum([0, *sizes])[:-1])


def fit_preprocessing(train: Rows, *, schema: FeatureSchema) -> Preprocessing:
    """Fit on these rows, which must be the training split alone."""
    numbers = schema.of_kind("numeric", "date")
    categories = schema.of_kind("category")
    return Preprocessing(
        numbers=tuple(_fit_number(f.name, train.numeric[:, i], is_date=f.kind == "date") for i, f in enumerate(numbers)),
        categories=tuple(_fit_category(f.name, column) for f, column in zip(categories, train.categorical, strict=True)),
        image_size=train.image.shape[1],
        image_scale=float(np.abs(train.image).max()) or 1.0 if train.image.size else 1.0,
    )


def _fit_number(name: str, column: NDArray[np.float32], *, is_date: bool) -> NumberColumn:
    known = column[np.isfinite(column)].astype(np.float64)
    if known.size == 0:
        return NumberColumn(name, is_date, 0.0, 0.0, 1.0, (0.0, 1.0))
    edges = np.unique(np.quantile(known, np.linspace(0, 1, BINS + 1)))
    if len(edges) == 1:
        edges = np.array([edges[0], edges[0] + 1.0])
    deviation = float(known.std())
    return NumberColumn(name, is_date, float(np.median(known)), float(known.mean()), deviation or 1.0, tuple(edges.tolist()))


def _fit_category(name: str, column: pa.Array) -> CategoryColumn:
    counts = sorted(pc.value_counts(column).to_pylist(), key=lambda entry: (-entry["counts"], entry["values"]))
    # A small training set has no value above the usual bar: there the bar sinks with the number of rows.
    bar = min(RARE, 1 + len(column) // 100)
    return CategoryColumn(name, tuple(entry["values"] for entry in counts if entry["counts"] >= bar and entry["values"]))


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
