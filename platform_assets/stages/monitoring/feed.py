"""Whether a window is what the source meant to send: a broken feed is not drift, and nothing may be learnt from it.

A fault is a pattern that a changed world does not make: rows sent twice, a value that stands still, a few values far out of all that was
ever seen, one column's values in another. How much of each a healthy feed shows is taken from the blocks of its own past.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

_CELLS = 64
_MORE_REPEATED = 0.2  # share of rows beyond what the worst block had
_MORE_FAR = 0.01
_ENDS = (0.001, 0.999)  # of the seen range: a single odd value must not hide a thousand
_FAR = 3.0  # widths of the seen range beyond its ends
_LONGEST_SHARE = 0.1  # of the window that one value may stand still, in a column that never did
_TIMES_LONGER = 3.0
_FEWEST_VALUES = 10  # distinct ones, below which a column may well stand still or look like another
_OTHER = 0.3  # KS distance from itself from which a column may be another
_SAME = 0.1  # and distance below which it is that other one
_SEED = 20_211


@dataclass(frozen=True)
class ColumnPast:
    """What a healthy column showed: its range, quantiles, and the worst of its blocks."""

    name: str
    low: float
    high: float
    quantiles: tuple[float, ...]
    distinct: int
    far_share: float
    longest_run: int


@dataclass(frozen=True)
class FeedPast:
    """What a healthy feed showed."""

    columns: tuple[ColumnPast, ...]
    repeated_share: float


@dataclass(frozen=True)
class Fault:
    """One thing wrong with a window's feed."""

    kind: str
    columns: tuple[str, ...]
    sentence: str


def remember_feed(columns: Mapping[str, np.ndarray], *, window_rows: int, categories: Collection[str] = ()) -> FeedPast:
    """Summarise healthy rows in order of time, cut into blocks of a window.

    Columns are float64, NaN is missing; `categories` names those that hold numbered words.
    """
    names = list(columns)
    rows = len(columns[names[0]])
    starts = range(0, max(rows - window_rows, 0) + 1, window_rows)
    repeated = max(_repeated_share([columns[name][start : start + window_rows] for name in names]) for start in starts)
    return FeedPast(tuple(_remember(name, columns[name], starts, window_rows, amount=name not in categories) for name in names), repeated)


def find_faults(past: FeedPast, columns: Mapping[str, np.ndarray]) -> tuple[Fault, ...]:
    """Return what is wrong with a window in order of time, the surest first; nothing for a healthy one, drifted or not."""
    found = []
    repeated = _repeated_share([columns[column.name] for column in past.columns])
    if repeated > past.repeated_share + _MORE_REPEATED:
        found.append(
            Fault("duplicated batch", (), f"{repeated:.0%} of its rows were sent before, {past.repeated_share:.0%} at most are usual")
        )
    for column in past.columns:
        values = columns[column.name]
        run = _longest_run(values)
        if column.distinct >= _FEWEST_VALUES and run > max(_TIMES_LONGER * column.longest_run, _LONGEST_SHARE * len(values)):
            sentence = f"{column.name} stands still for {run} rows, {column.longest_run} at most are usual"
            found.append(Fault("stuck sensor", (column.name,), sentence))
        elif other := _mistaken_for(column, values, past.columns):
            found.append(Fault("shifted column", (column.name, other), f"{column.name} holds what belongs to {other}"))
        else:
            far = _far_share(values, column.low, column.high)
            if far > column.far_share + _MORE_FAR:
                sentence = (
                    f"{far:.1%} of {column.name} lie far outside of {column.low:g} to {column.high:g}: another unit or another meaning"
                )
                found.append(Fault("unit change", (column.name,), sentence))
    return tuple(found)


def _remember(name: str, values: np.ndarray, starts: Sequence[int], window_rows: int, *, amount: bool) -> ColumnPast:
    known = values[np.isfinite(values)]
    distinct = len(np.unique(known))
    if not amount or distinct < _FEWEST_VALUES:  # words and few values may well stand still, vanish or be new
        return ColumnPast(name, 0.0, 0.0, (), distinct if amount else 0, 1.0, len(values))
    low, high = (float(end) for end in np.quantile(known, _ENDS))
    quantiles = tuple(np.quantile(known, np.linspace(0, 1, _CELLS)).tolist())
    blocks = [values[start : start + window_rows] for start in starts]
    far = max(_far_share(block, low, high) for block in blocks)
    return ColumnPast(name, low, high, quantiles, distinct, far, max(_longest_run(block) for block in blocks))


def _repeated_share(columns: Sequence[np.ndarray]) -> float:
    """Share of rows that equal an earlier one in every column, by one weighted sum of the columns' bits a row."""
    weights = np.random.default_rng(_SEED).integers(1, 2**63, len(columns), dtype=np.uint64) | np.uint64(1)
    mixed = np.zeros(len(columns[0]), dtype=np.uint64)
    for values, weight in zip(columns, weights, strict=True):
        bits = np.ascontiguousarray(values, dtype=np.float64).view(np.uint64)
        mixed = (mixed ^ (bits * weight)) * np.uint64(0x9E3779B97F4A7C15)
        mixed ^= mixed >> np.uint64(29)
    return 1 - len(np.unique(mixed)) / max(len(mixed), 1)


def _longest_run(values: np.ndarray) -> int:
    """Longest run of one value; missing ones stand for themselves and end a run."""
    if not len(values):
        return 0
    changes = np.flatnonzero(np.diff(values) != 0) + 1
    return int(np.diff(np.concatenate([[0], changes, [len(values)]])).max())


def _far_share(values: np.ndarray, low: float, high: float) -> float:
    width = max(high - low, abs(high), abs(low)) if high > low else max(abs(high), 1.0)
    return float(np.mean((values > high + _FAR * width) | (values < low - _FAR * width))) if len(values) else 0.0


def _mistaken_for(column: ColumnPast, values: np.ndarray, others: Sequence[ColumnPast]) -> str | None:
    known = np.sort(values[np.isfinite(values)])
    if column.distinct < _FEWEST_VALUES or len(known) < _FEWEST_VALUES or _distance(column, known) < _OTHER:
        return None
    near = [(_distance(other, known), other.name) for other in others if other is not column and other.distinct >= _FEWEST_VALUES]
    best, name = min(near, default=(1.0, ""))
    return name if best < _SAME else None


def _distance(past: ColumnPast, known: np.ndarray) -> float:
    """KS distance of sorted values from a past, read at the past's quantiles; ties count between their ends."""
    points = np.asarray(past.quantiles)
    below, upto = (np.searchsorted(known, points, side=side) / len(known) for side in ("left", "right"))
    levels = np.linspace(0, 1, len(points))
    return float(np.maximum(np.maximum(below - levels, levels - upto), 0.0).max())
