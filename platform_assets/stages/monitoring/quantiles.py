"""Ranks of a stream of numbers in one pass and little memory, with the error counted. Missing values are sketch's matter."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce

import numpy as np

CAPACITY = 4096  # items a level holds before it is halved: 0.07 % of the rank at a million rows in batches of 65,536


@dataclass(frozen=True, eq=False)
class QuantileSketch:
    """Levels of kept values; one of level h stands for 2^h rows. No rank is off by more than `slack` rows.

    Munro and Paterson 1980 (Theor. Comput. Sci. 12, 315), with the levels of Karnin, Lang and Liberty 2016 (FOCS 57, 71), without chance:
    a full level is sorted and every other value goes up, first or second of a pair in turn.
    """

    rows: int
    levels: tuple[np.ndarray, ...]
    slack: int

    def merge(self, other: QuantileSketch) -> QuantileSketch:
        """Return the sketch of both streams; the order of merging changes ranks by no more than the slack."""
        height = max(len(self.levels), len(other.levels))
        levels = [np.concatenate([_level(self, place), _level(other, place)]) for place in range(height)]
        return _halve(levels, rows=self.rows + other.rows, slack=self.slack + other.slack)

    def points(self, count: int) -> np.ndarray:
        """Return at most `count` sorted values at evenly spaced ranks, smallest and largest kept value among them."""
        kept = [level for level in self.levels if len(level)]
        if not kept:
            return np.empty(0)
        values = np.concatenate(kept)
        weights = np.concatenate([np.full(len(level), 2**height) for height, level in enumerate(self.levels) if len(level)])
        order = np.argsort(values, kind="stable")
        values, upto = values[order], np.cumsum(weights[order])
        if self.rows <= count:
            return values
        ranks = np.linspace(0, self.rows - 1, count).round().astype(np.int64)
        return values[np.searchsorted(upto, ranks, side="right")]


def sketch_values(values: np.ndarray) -> QuantileSketch:
    """Sketch numbers, none of them missing."""
    return _halve([np.asarray(values, np.float64)], rows=len(values), slack=0)


def merge_all(sketches: list[QuantileSketch]) -> QuantileSketch:
    """Merge any number of sketches, none included."""
    return reduce(QuantileSketch.merge, sketches, sketch_values(np.empty(0)))


def _level(sketch: QuantileSketch, place: int) -> np.ndarray:
    return sketch.levels[place] if place < len(sketch.levels) else np.empty(0)


def _halve(levels: list[np.ndarray], *, rows: int, slack: int) -> QuantileSketch:
    kept: list[np.ndarray] = []
    carried = np.empty(0)
    height = 0
    while height < len(levels) or len(carried):
        items = np.concatenate([levels[height], carried]) if height < len(levels) else carried
        carried = np.empty(0)
        if len(items) > CAPACITY:
            items = np.sort(items)
            even = len(items) // 2 * 2
            carried = items[(rows + height) % 2 : even : 2].copy()  # a view would keep the whole batch in memory
            items = items[even:].copy()
            slack += 2**height
        kept.append(items)
        height += 1
    return QuantileSketch(rows, tuple(kept), slack)
