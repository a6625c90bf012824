"""What a release was trained on, small enough to travel with it: a summary a signal, and how far its own past strayed from it.

Rows of a time-ordered table are not independent draws: blocks of the training data itself differ from the rest by far more than
a test's null allows, and a test alone would fire on every window. So each signal carries the distance its own blocks showed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from platform_assets.errors import StageError
from platform_assets.networks.tokens import Tokeniser
from platform_assets.stages.monitoring.signals import Signal, order_by_event, take_answers, take_signals
from platform_assets.stages.monitoring.statistics import ks_distance, total_variation

if TYPE_CHECKING:
    import pyarrow as pa

    from platform_assets.specs.records import FeatureSchema

SKETCH = 2001
_FEWEST_BLOCKS = 3
_DEVIATIONS = 2.5  # Leys et al. 2013, J. Exp. Soc. Psychol. 49, 764: median and this many scaled deviations, unmoved by outliers
_MAD_SCALE = 1.4826  # makes the median absolute deviation a standard deviation, for normal values


@dataclass(frozen=True)
class SignalReference:
    """Summary of one signal over the training rows.

    number: `quantiles`, at most SKETCH sorted values at evenly spaced ranks, None (first) where missing; category: `counts` by value,
    "" is missing. `strayed`: effect that a block of training rows hardly passes against the other blocks; 0 with too few to tell.
    """

    name: str
    feature: str
    kind: str
    quantiles: tuple[float | None, ...]
    counts: dict[str, int]
    strayed: float
    rows: int


@dataclass(frozen=True)
class Reference:
    """Summary of the rows a release was trained on."""

    rows: int
    window_rows: int
    first_event: str
    last_event: str
    signals: tuple[SignalReference, ...]
    tokeniser: Tokeniser | None = None


def build_reference(
    train: pa.Table,
    *,
    schema: FeatureSchema,
    probabilities: np.ndarray,
    window_rows: int,
    unseen: np.ndarray | None = None,
    tokeniser: Tokeniser | None = None,
) -> Reference:
    """Summarise training rows (features as plain columns, event time) and the release's answers to them, [rows, classes].

    `unseen`: its answers to rows it was not trained on, against which live answers are held; a model is surer of what it has seen.
    `tokeniser`: the one of its texts.
    """
    if not train.num_rows:
        raise StageError("a drift reference was asked for from no training rows; at least one is needed")
    order = order_by_event(train, schema=schema)
    train = train.take(order)
    signals = take_signals(train, schema=schema, probabilities=np.asarray(probabilities)[order], tokeniser=tokeniser)
    compared = {} if unseen is None else {signal.name: signal for signal in take_answers(unseen, classes=schema.classes)}
    events = train[schema.event_time]
    return Reference(
        rows=train.num_rows,
        window_rows=window_rows,
        first_event=str(events[0].as_py()),
        last_event=str(events[-1].as_py()),
        signals=tuple(
            _summarise(compared.get(signal.name, signal), strayed=measure_straying(signal, window_rows=window_rows)) for signal in signals
        ),
        tokeniser=tokeniser,
    )


def measure_effect(kind: str, reference: np.ndarray, current: np.ndarray) -> float:
    """Effect in [0, 1]: Kolmogorov-Smirnov distance of numbers, total variation of categories."""
    return total_variation(reference, current) if kind == "category" else ks_distance(reference, current)


def rank_missing_lowest(values: np.ndarray) -> np.ndarray:
    """Put missing numbers below every other, so that a surge of them is a distance like any other."""
    return np.where(np.isnan(values), -np.inf, values)


def _summarise(signal: Signal, *, strayed: float) -> SignalReference:
    rows = len(signal.values)
    if signal.kind == "category":
        names, counts = np.unique(signal.values.astype(str), return_counts=True)
        table = dict(zip(names.tolist(), counts.tolist(), strict=True))
        return SignalReference(signal.name, signal.feature, signal.kind, (), table, strayed, rows)
    ranked = np.sort(rank_missing_lowest(signal.values))
    sketch = ranked[np.linspace(0, len(ranked) - 1, min(SKETCH, len(ranked))).round().astype(int)]
    quantiles = tuple(None if value == -np.inf else value for value in sketch.tolist())
    return SignalReference(signal.name, signal.feature, signal.kind, quantiles, {}, strayed, rows)


def measure_straying(signal: Signal, *, window_rows: int) -> float:
    """Return what effect a block of `window_rows` consecutive values hardly passes against all other blocks; 0 under three blocks.

    Median and 2.5 scaled median absolute deviations rather than the largest: the head of a history is often selected (the first
    hotel bookings are those made years ahead), and its few odd blocks would hide every later drift.
    """
    blocks = len(signal.values) // window_rows
    if blocks < _FEWEST_BLOCKS:
        return 0.0
    values = signal.values.astype(str) if signal.kind == "category" else rank_missing_lowest(signal.values)
    names, cells = np.unique(values[: blocks * window_rows], return_inverse=True)
    counts = np.stack([np.bincount(block, minlength=len(names)) for block in cells.reshape(blocks, window_rows)])
    total = counts.sum(axis=0)
    effects = np.array([measure_effect(signal.kind, total - block, block) for block in counts])
    middle = np.median(effects)
    return float(middle + _DEVIATIONS * _MAD_SCALE * np.median(np.abs(effects - middle)))
