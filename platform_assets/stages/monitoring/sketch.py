"""Rows in one pass: a sketch a signal that merges with that of other rows, and its summary. Nothing is compared here.

A window of any number of rows is the merged sketches of its batches; a reference is the merged sketches of its blocks.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, Literal

import numpy as np

from platform_assets.stages.monitoring.frequencies import FrequencySketch, sketch_words
from platform_assets.stages.monitoring.quantiles import QuantileSketch, sketch_values

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from platform_assets.stages.monitoring.signals import Signal

Kind = Literal["number", "category", "words"]
POINTS = 1001
SAMPLE = 4096  # rows that are kept whole, for what columns say together
_DIGITS = 7  # of a stored number


@dataclass(frozen=True, eq=False)
class NumberSketch:
    """Numbers of one signal; `mean` and `spread` (sum of squared deviations) are of the `rows - missing` known ones.

    They merge as by Chan, Golub and LeVeque 1979 (COMPSTAT 5, 30). `low` and `high` are infinite where none is known.
    """

    rows: int
    missing: int
    low: float
    high: float
    mean: float
    spread: float
    quantiles: QuantileSketch

    def merge(self, other: NumberSketch) -> NumberSketch:
        """Return the sketch of both."""
        mine, theirs = self.rows - self.missing, other.rows - other.missing
        both = max(mine + theirs, 1)
        apart = other.mean - self.mean if mine and theirs else 0.0
        return NumberSketch(
            rows=self.rows + other.rows,
            missing=self.missing + other.missing,
            low=min(self.low, other.low),
            high=max(self.high, other.high),
            mean=(self.mean * mine + other.mean * theirs) / both,
            spread=self.spread + other.spread + apart * apart * mine * theirs / both,
            quantiles=self.quantiles.merge(other.quantiles),
        )


@dataclass(frozen=True, eq=False)
class CategorySketch:
    """Words of one signal; `frequencies` counts the known ones. `rows` are table rows, of which a text may hold many words or none."""

    rows: int
    missing: int
    frequencies: FrequencySketch

    def merge(self, other: CategorySketch) -> CategorySketch:
        """Return the sketch of both."""
        return CategorySketch(self.rows + other.rows, self.missing + other.missing, self.frequencies.merge(other.frequencies))


@dataclass(frozen=True, eq=False)
class RowSample:
    """The SAMPLE rows with the smallest of random numbers, by signal: number float64, category str objects ("" is missing)."""

    priorities: np.ndarray
    values: dict[str, np.ndarray]

    def merge(self, other: RowSample) -> RowSample:
        """Return a sample of both; in any order the same."""
        priorities = np.concatenate([self.priorities, other.priorities])
        kept = np.argsort(priorities, kind="stable")[:SAMPLE]
        values = {name: np.concatenate([values, other.values[name]])[kept] for name, values in self.values.items()}
        return RowSample(priorities[kept], values)


@dataclass(frozen=True, eq=False)
class Sketch:
    """All signals of some rows, in order, each with the feature it is taken from and its kind."""

    rows: int
    features: dict[str, tuple[str, Kind]]
    signals: dict[str, NumberSketch | CategorySketch]
    sample: RowSample

    def merge(self, other: Sketch) -> Sketch:
        """Return the sketch of both sets of rows; both hold the same signals."""
        merged = {name: signal.merge(other.signals[name]) for name, signal in self.signals.items()}  # type: ignore[arg-type]
        return Sketch(self.rows + other.rows, self.features, merged, self.sample.merge(other.sample))


@dataclass(frozen=True)
class Summary:
    """What is stored and compared of one signal.

    number: `points`, at most POINTS sorted known values at evenly spaced ranks, `low`, `high`, `mean`, `deviation`; others: `counts` of the
    most frequent values, `lost` at most that many rows more each. `rows` and `missing` are table rows.
    """

    name: str
    feature: str
    kind: Kind
    rows: int
    missing: int
    points: tuple[float, ...] = ()
    low: float = 0.0
    high: float = 0.0
    mean: float = 0.0
    deviation: float = 0.0
    counts: dict[str, int] | None = None
    lost: int = 0


def sketch_signals(signals: Sequence[Signal], *, seed: int) -> Sketch:
    """Sketch the signals of some rows; `seed`: of which rows are sampled, another one for each batch of a stream."""
    rows = signals[0].rows if signals else 0
    priorities = np.random.default_rng([seed, rows]).random(rows)
    kept = np.sort(np.argpartition(priorities, SAMPLE)[:SAMPLE]) if rows > SAMPLE else np.arange(rows)
    return Sketch(
        rows=rows,
        features={signal.name: (signal.feature, signal.kind) for signal in signals},
        signals={signal.name: _sketch(signal) for signal in signals},
        sample=RowSample(priorities[kept], {signal.name: signal.take(kept) for signal in signals if signal.kind != "words"}),
    )


def merge_sketches(sketches: Iterable[Sketch]) -> Sketch:
    """Merge one sketch or more."""
    return reduce(Sketch.merge, sketches)


def summarise(sketch: Sketch) -> dict[str, Summary]:
    """Return the summary of each signal."""
    return {name: _summarise(name, *sketch.features[name], signal) for name, signal in sketch.signals.items()}


def _sketch(signal: Signal) -> NumberSketch | CategorySketch:
    if signal.kind != "number":
        known = signal.known()
        return CategorySketch(signal.rows, signal.missing(), sketch_words(known))
    values = signal.known()
    some = len(values) > 0
    mean = float(values.mean()) if some else 0.0
    return NumberSketch(
        rows=signal.rows,
        missing=signal.rows - len(values),
        low=float(values.min()) if some else float("inf"),
        high=float(values.max()) if some else float("-inf"),
        mean=mean,
        spread=float(values.var() * len(values)) if some else 0.0,
        quantiles=sketch_values(values),
    )


def _summarise(name: str, feature: str, kind: Kind, sketch: NumberSketch | CategorySketch) -> Summary:
    if isinstance(sketch, CategorySketch):
        found = sketch.frequencies
        return Summary(name, feature, kind, sketch.rows, sketch.missing, counts=found.counts, lost=found.lost)
    known = sketch.rows - sketch.missing
    if not known:
        return Summary(name, feature, kind, sketch.rows, sketch.missing)
    return Summary(
        name, feature, kind, sketch.rows, sketch.missing,
        points=tuple(round_to_digits(sketch.quantiles.points(POINTS)).tolist()),
        low=_rounded(sketch.low), high=_rounded(sketch.high), mean=_rounded(sketch.mean),
        deviation=_rounded(float(np.sqrt(sketch.spread / known))),
    )  # fmt: skip


def _rounded(value: float) -> float:
    return float(round_to_digits(np.array(value)))


def round_to_digits(values: np.ndarray) -> np.ndarray:
    """Round to seven digits, so that what is stored stays short; ranks hardly change."""
    values = np.asarray(values, np.float64)
    with np.errstate(over="ignore", invalid="ignore"):  # of numbers near the ends of what a float holds: they stay as they are
        scale = 10.0 ** (_DIGITS - 1 - np.floor(np.log10(np.where(values == 0, 1.0, np.abs(values)))))
        rounded: np.ndarray = np.round(values * scale) / scale
    return np.where(np.isfinite(rounded), rounded, values)
