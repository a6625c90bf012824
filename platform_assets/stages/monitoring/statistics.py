"""Distances between two samples and the chance of seeing them by luck. Which distance counts as drift is decided in drift.py.

`reference` and `current` are counts over the same cells, in the same order, or sorted values where a function says so.
"""

from __future__ import annotations

import math

import numpy as np

_TERMS = 101
_SMALLEST_EXPECTED = 5.0  # Cochran (1954): cells expected below five are pooled before a chi-squared test
_TAIL = 10_000


def ks_distance(reference: np.ndarray, current: np.ndarray) -> float:
    """Kolmogorov-Smirnov distance of two sets of sorted values: largest gap between their distribution functions, in [0, 1]."""
    if not len(reference) or not len(current):
        return 0.0
    places = np.concatenate([reference, current])
    one, other = (np.searchsorted(points, places, side="right") / len(points) for points in (reference, current))
    return float(np.abs(one - other).max())


def ks_p_value(distance: float, *, reference_rows: int, current_rows: int) -> float:
    """Asymptotic two-sided p-value of the two-sample test.

    Kolmogorov's distribution with Stephens' correction for finite samples (Stephens 1970, J. R. Stat. Soc. B 32, 115). With
    ties, as in discrete columns, the true p-value is smaller: the test errs on the quiet side.
    """
    if reference_rows == 0 or current_rows == 0:
        return 1.0
    root = math.sqrt(reference_rows * current_rows / (reference_rows + current_rows))
    scaled = (root + 0.12 + 0.11 / root) * distance
    if scaled < 0.3:  # noqa: PLR2004  (below it the alternating series does not converge, and the value is 1 to five digits)
        return 1.0
    terms = np.arange(1, _TERMS)
    return float(np.clip(2 * np.sum((-1.0) ** (terms - 1) * np.exp(-2 * (terms * scaled) ** 2)), 0.0, 1.0))


def total_variation(reference: np.ndarray, current: np.ndarray) -> float:
    """Total variation distance: half the sum of differences between two sets of shares, in [0, 1]; symmetric."""
    return float(min(1.0, 0.5 * np.abs(_shares(reference) - _shares(current)).sum()))


def chi_squared_p_value(reference: np.ndarray, current: np.ndarray) -> float:
    """Pearson's test of homogeneity of two rows of counts (Pearson 1900); rare cells are pooled (Cochran 1954)."""
    from scipy.special import gammaincc

    both = np.stack([np.asarray(reference, float), np.asarray(current, float)])
    rows = both.sum(axis=1)
    if not rows.all():
        return 1.0
    rare = both.sum(axis=0) * rows.min() / rows.sum() < _SMALLEST_EXPECTED
    if rare.any():
        both = np.column_stack([both[:, ~rare], both[:, rare].sum(axis=1)])
    both = both[:, both.sum(axis=0) > 0]
    if both.shape[1] < 2:  # noqa: PLR2004  (one cell holds everything: nothing can differ)
        return 1.0
    expected = np.outer(rows, both.sum(axis=0)) / rows.sum()
    statistic = ((both - expected) ** 2 / expected).sum()
    return float(gammaincc((both.shape[1] - 1) / 2, statistic / 2))


def surge_p_value(count: int, rows: int, *, before: int, before_rows: int) -> float:
    """Chance that `rows` hold at least `count` of what `before_rows` hold `before`: Fisher's exact test, one-sided (Fisher 1935).

    Terms beyond the first thousands of a tail add nothing to a float.
    """
    from scipy.special import gammaln

    marked, total = count + before, rows + before_rows
    if count * total <= marked * rows:  # no more than its share
        return 1.0
    found = np.arange(count, min(rows, marked, count + _TAIL) + 1, dtype=np.float64)

    def choose(of: np.ndarray | float, taken: np.ndarray | float) -> np.ndarray:
        ways: np.ndarray = gammaln(of + 1.0) - gammaln(np.asarray(taken) + 1.0) - gammaln(of - np.asarray(taken) + 1.0)
        return ways

    logs = choose(marked, found) + choose(total - marked, rows - found) - choose(total, rows)
    return float(min(1.0, np.exp(logs).sum()))


def _shares(counts: np.ndarray) -> np.ndarray:
    counts = np.asarray(counts, dtype=np.float64)
    total = counts.sum()
    return counts / total if total else counts
