"""Whether a retraining helped: the new model against the one it is to replace, on the same rows. The policy reads the word, no more."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from platform_assets.measures import HIGHER_IS_BETTER, METRICS, measure

RESAMPLES = 200
FEWEST_ROWS = 100
_Z = 1.96  # of a 95 % interval
_SEED = 7


@dataclass(frozen=True)
class Answers:
    """One model's answers to some rows: labels [N] as indices into its own classes, probabilities [N, classes]."""

    labels: np.ndarray
    probabilities: np.ndarray


@dataclass(frozen=True)
class RetrainingOutcome:
    """`gain` is positive when the new model is better, in the metric's own unit; `low` and `high` are the ends of its 95 % interval."""

    outcome: Literal["helped", "did_not_help", "undecided"]
    metric: str
    before: float
    after: float
    gain: float
    low: float
    high: float
    rows: int
    sentence: str

    @property
    def share(self) -> float:
        """Share of the loss that the new model took away; the loss of a metric where more is better is what it lacks to 1."""
        loss = 1.0 - self.before if HIGHER_IS_BETTER[self.metric] else self.before
        return self.gain / loss if loss > 0 else 0.0


def judge_outcome(before: Answers, after: Answers, *, kind: str, least_gain: float) -> RetrainingOutcome | None:
    """Compare two models on the same rows by the leading metric of the kind; None where the rows do not define it.

    It did not help where a gain of `least_gain` can be ruled out, helped where the gain is surely above nothing, and is undecided between.
    The interval is the normal one around the gain, its error that of paired bootstrap resamples (Efron and Tibshirani 1993, ch. 8).
    """
    rows, metric = len(before.labels), METRICS[kind][0]
    if rows != len(after.labels):
        raise ValueError(f"{rows} rows answered before, {len(after.labels)} after; the same rows are compared")
    sign = 1.0 if HIGHER_IS_BETTER[metric] else -1.0

    def values(of: np.ndarray) -> tuple[float, float] | None:
        found = [measure(one.labels[of], probabilities=one.probabilities[of], kind=kind).get(metric) for one in (before, after)]
        return None if found[0] is None or found[1] is None else (found[0], found[1])

    whole = values(np.arange(rows)) if rows >= FEWEST_ROWS else None
    if whole is None:
        return None
    random = np.random.default_rng(_SEED)
    drawn = [values(random.integers(0, rows, rows)) for _ in range(RESAMPLES)]
    error = float(np.std([sign * (pair[1] - pair[0]) for pair in drawn if pair is not None]))
    gain = sign * (whole[1] - whole[0])
    low, high = gain - _Z * error, gain + _Z * error
    outcome: Literal["helped", "did_not_help", "undecided"] = "did_not_help" if high < least_gain else "helped" if low > 0 else "undecided"
    word = {"helped": "helped", "did_not_help": "did not help", "undecided": "is undecided whether it helped"}[outcome]
    sentence = (
        f"on the {rows} newest labelled rows it {word}: {metric} {whole[0]:.4f} before, {whole[1]:.4f} after, "
        f"gain {gain:+.4f} (95 %: {low:+.4f} to {high:+.4f}; {least_gain:g} is asked)"
    )
    return RetrainingOutcome(outcome, metric, whole[0], whole[1], gain, low, high, rows, sentence)
