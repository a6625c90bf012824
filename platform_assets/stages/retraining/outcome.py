"""Whether a retraining helped: the new model against the one it replaced, on the same rows. The policy reads the word, no more."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from platform_assets.measures import HIGHER_IS_BETTER


@dataclass(frozen=True)
class RetrainingOutcome:
    """`gain` is positive when the new model is better, in the metric's own unit."""

    outcome: Literal["helped", "did_not_help"]
    metric: str
    before: float
    after: float
    gain: float
    sentence: str


def judge_outcome(metric: str, *, before: float, after: float, least_gain: float = 0.0) -> RetrainingOutcome:
    """Compare the replaced model (`before`) and the new one (`after`) on the same rows; helped means a gain above `least_gain`."""
    if metric not in HIGHER_IS_BETTER:
        raise ValueError(f"no metric {metric!r}; known: {', '.join(HIGHER_IS_BETTER)}")
    gain = after - before if HIGHER_IS_BETTER[metric] else before - after
    helped = gain > least_gain
    word = "helped" if helped else "did not help"
    sentence = f"on the newest labelled rows it {word}: {metric} {before:.4f} before, {after:.4f} after"
    return RetrainingOutcome("helped" if helped else "did_not_help", metric, before, after, gain, sentence)
