"""Distances between two samples and the chance of seeing them by luck. Which distance counts as drift is decided in drift.py.

All of these are plain numpy on counts: `reference` and `current` are counts over the same cells, in the same order.
"""

from __future__ import annotations

import math

import numpy as np

_TERMS = 101
_SMALLEST_EXPECTED = 5.0  # Cochran (1954): cells expected below five are pooled before a chi-squared test
_FLOOR = 1e-4


def ks_distance(reference: np.ndarray, current: np.ndarray) -> float:
    """Kolmogorov-Smirnov distance: largest gap between two distribution functions, in [0, 1]; cells are in ascending order of value."""
    return float(np.abs(np.cumsum(_shares(reference)) - np.cumsum(_shares(current))).max(initial=0.0))


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


def population_stability_index(reference: np.ndarray, current: np.ndarray) -> float:
    """PSI: symmetric Kullback-Leibler divergence over cells (Jeffreys 1946; Siddiqi 2006); empty cells count as 0.01 %.

    Bankers' rule of thumb: below 0.1 stable, above 0.25 a marked shift.
    """
    expected, found = (np.maximum(_shares(counts), _FLOOR) for counts in (reference, current))
    return float(((found - expected) * np.log(found / expected)).sum())


def _shares(counts: np.ndarray) -> np.ndarray:
    counts = np.asarray(counts, dtype=np.float64)
    total = counts.sum()
    return counts / total if total else counts
