"""How good a window's answers probably are, before any label is known: from the model's own confidence, calibrated on rows it never saw.

What a calibrated model says of its chances is what it will get, as long as what it says still holds. So a changed concept, the same rows
with other outcomes, cannot show in it, and rows far from what was learnt are often answered more surely, not less. That nothing fell
proves nothing: it never speaks against a retraining.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from platform_assets.measures import HIGHER_IS_BETTER, METRICS, measure
from platform_assets.specs.estimate import WindowEstimate

if TYPE_CHECKING:
    from platform_assets.stages.monitoring.drift import Window

BLIND = "a changed concept, the same rows with other outcomes, cannot show in it"
_BLOCKS = 5  # of unseen rows in order of time, each estimated by what the others calibrate
_FEWEST = 100  # unseen rows, and rows of a window
_DRAWS = 100
_MOST_DRAWN = 4000  # rows that labels are drawn for; the spread of more follows from it
_Z = 1.96  # of a 95 % interval
_SMALLEST = 1e-6
_LOOSE = 1e3  # hardly any penalty: two numbers do not overfit
_MOST_ODDS = 12.0  # logarithm: one in 160,000
_SEED = 11


@dataclass(frozen=True)
class Calibration:
    """Turns confidence into chances: a line on the log odds (Platt 1999), and how far its estimates were off on blocks of unseen rows.

    `off`: standard deviation of the leading metric around its estimate, beyond what the chance of a window's labels explains: what blocks
    of the unseen rows showed, and that these were a sample themselves. Of two classes the chance is that of the second, of more that the
    most probable one is right.
    """

    slope: float
    offset: float
    off: float

    def chances(self, confidence: np.ndarray) -> np.ndarray:
        """Return calibrated chances of confidences [rows]; none is certain, however well the unseen rows were told apart."""
        odds = np.clip(self.slope * _log_odds(confidence) + self.offset, -_MOST_ODDS, _MOST_ODDS)
        chances: np.ndarray = 1 / (1 + np.exp(-odds))
        return chances


def calibrate(probabilities: np.ndarray, labels: np.ndarray, *, kind: str) -> Calibration | None:
    """Calibrate on answers [rows, classes] to unseen rows in order of time, labels as class indices; None where too few can tell."""
    rows = len(labels)
    if rows < _FEWEST:
        return None
    whole = _fit(probabilities, labels, kind=kind)
    if whole is None:
        return None
    surplus = []
    for block in np.array_split(np.arange(rows), _BLOCKS):
        others = np.setdiff1d(np.arange(rows), block)
        fitted = _fit(probabilities[others], labels[others], kind=kind)
        found = measure(labels[block], probabilities=probabilities[block], kind=kind).get(METRICS[kind][0])
        if fitted is None or found is None:
            continue
        value, spread = _expect(probabilities[block], fitted, kind=kind)
        surplus.append((value - found) ** 2 - spread**2)
    sampled = _expect(probabilities, whole, kind=kind)[1]
    return Calibration(whole.slope, whole.offset, float(np.sqrt(max(0.0, np.mean(surplus) if surplus else 0.0) + sampled**2)))


def estimate_window(
    probabilities: np.ndarray, *, window: Window, last_event: str, calibration: Calibration, kind: str, promised: float, drop: float
) -> WindowEstimate | None:
    """Estimate the leading metric of a window from its answers [rows, classes]; None of too few rows.

    It counts as dropped where the whole 95 % interval is more than `drop` worse than `promised`.
    """
    if len(probabilities) < _FEWEST:
        return None
    metric = METRICS[kind][0]
    value, spread = _expect(probabilities, calibration, kind=kind)
    half = _Z * float(np.hypot(spread, calibration.off))
    low, high = max(0.0, value - half), min(1.0, value + half)
    best = high if HIGHER_IS_BETTER[metric] else low
    dropped = (promised - best) * (1 if HIGHER_IS_BETTER[metric] else -1) > drop
    told = f"{metric} estimated at {value:.3f} (95 %: {low:.3f} to {high:.3f}), promised {promised:.3f}"
    return WindowEstimate(
        window=window.index, last_event=last_event, metric=metric, value=value, low=low, high=high, promised=promised, dropped=dropped,
        sentence=f"window {window.index}: {told}{'; that is a drop' if dropped else f'; {BLIND}'}",
    )  # fmt: skip


def _fit(probabilities: np.ndarray, labels: np.ndarray, *, kind: str) -> Calibration | None:
    from sklearn.linear_model import LogisticRegression

    confidence = _confidence(probabilities, kind=kind)
    came = labels == (1 if kind == "binary" else probabilities.argmax(axis=1))
    if came.all() or not came.any():
        return None
    fitted = LogisticRegression(C=_LOOSE).fit(_log_odds(confidence)[:, None], came)
    return Calibration(float(fitted.coef_[0, 0]), float(fitted.intercept_[0]), 0.0)


def _expect(probabilities: np.ndarray, calibration: Calibration, *, kind: str) -> tuple[float, float]:
    """Return the expected metric, and the standard deviation that the chance of labels alone gives it."""
    confidence = _confidence(probabilities, kind=kind)
    chances = calibration.chances(confidence)
    if kind != "binary":
        return float(chances.mean()), float(np.sqrt((chances * (1 - chances)).sum()) / len(chances))
    rng = np.random.default_rng(_SEED)
    drawn = rng.permutation(len(chances))[:_MOST_DRAWN]
    ranks, some = _mean_ranks(confidence[drawn]), chances[drawn]
    labels = rng.random((_DRAWS, len(some))) < some
    positives = labels.sum(axis=1)
    both = (positives > 0) & (positives < len(some))
    areas = (labels @ ranks - positives * (positives + 1) / 2)[both] / (positives * (len(some) - positives))[both]
    return _expected_auroc(confidence, chances), float(areas.std() * np.sqrt(len(some) / len(chances))) if both.any() else 1.0


def _expected_auroc(confidence: np.ndarray, chances: np.ndarray) -> float:
    """Share of pairs in the right order, each pair weighed by the chance that it is one; ties count half."""
    _, place = np.unique(confidence, return_inverse=True)
    positive, negative = np.bincount(place, weights=chances), np.bincount(place, weights=1 - chances)
    below = np.cumsum(negative) - negative
    return float((positive * (below + negative / 2)).sum() / (positive.sum() * negative.sum()))


def _mean_ranks(values: np.ndarray) -> np.ndarray:
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: np.ndarray = (np.cumsum(counts) - (counts - 1) / 2)[place]
    return ranks


def _confidence(probabilities: np.ndarray, *, kind: str) -> np.ndarray:
    probabilities = np.asarray(probabilities, np.float64)
    found: np.ndarray = probabilities[:, 1] if kind == "binary" else probabilities.max(axis=1)
    return found


def _log_odds(shares: np.ndarray) -> np.ndarray:
    clipped = np.clip(shares, _SMALLEST, 1 - _SMALLEST)
    odds: np.ndarray = np.log(clipped / (1 - clipped))
    return odds
