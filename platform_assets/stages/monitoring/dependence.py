"""What columns say together: second moments of all pairs of columns, so that a drift in correlation alone is seen, and which pair moved.

Columns are coded by a reference: a number as the normal score of its rank, a category as indicators of its frequent values. Which pair
moved is told by the largest difference between two covariance matrices, over its error (Cai, Liu and Xia 2013, J. Am. Stat. Assoc. 108,
265). That some rows hold what does not go together is told by a score of each row: how much likelier it is under the reference's
covariances than with its columns drawn apart. No training row has to be kept for either.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from platform_assets.stages.monitoring.sketch import round_to_digits

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from platform_assets.stages.monitoring.sketch import RowSample, Summary

MOST_CODES = 160
_LEVELS = 6
_RAREST = 0.05  # share of a coded value, and of what is not it
_FARTHEST = 2.5  # normal score: the tails must not decide a covariance
_SMALLEST = 1e-9
ODD = 0.05  # share of the reference's rows whose score counts as low
_MOST = 0.97  # of the importance: what the rest says together hardly reaches an answer
_RIDGE = 0.1  # of the unit variances: columns that say the same leave a score finite


@dataclass(frozen=True)
class Code:
    """One coded column: the rank of a number among a summary's points (`level` is None), or whether a category is `level`."""

    signal: str
    level: str | None


@dataclass(frozen=True, eq=False)
class Moments:
    """Of rows [rows, codes]: covariances between codes, and what each product of two varies by."""

    rows: int
    covariance: np.ndarray
    variance: np.ndarray


@dataclass(frozen=True)
class Dependence:
    """Covariances of a reference between codes of different columns, pairs in order of `np.triu_indices`; codes have unit variance.

    `scales`: mean and deviation of each code before it was scaled. `strayed`: difference that a block of the reference hardly passes.
    `scored`: places of the codes that a row's score is made of, `weights` of their products [scored, scored]; `odd_below`: score that
    ODD of the reference's rows are below, and `odd_strayed` how many more of a block's.
    """

    rows: int
    codes: tuple[Code, ...]
    scales: tuple[tuple[float, ...], ...]
    covariance: tuple[float, ...]
    variance: tuple[float, ...]
    strayed: tuple[float, ...]
    scored: tuple[int, ...]
    weights: tuple[float, ...]
    odd_below: float
    odd_strayed: float


def choose_codes(summaries: Mapping[str, Summary]) -> tuple[Code, ...]:
    """Code every column once before any twice, at most MOST_CODES; one that nearly never changes is left out."""
    ranked: list[list[Code]] = []
    for name, summary in summaries.items():
        if summary.kind == "number":
            points = np.asarray(summary.points)
            if len(points) and np.unique(points, return_counts=True)[1].max() <= (1 - _RAREST) * len(points):
                ranked.append([Code(name, None)])
        elif summary.kind == "category" and summary.counts:
            shares = {level: count / summary.rows for level, count in summary.counts.items()}
            frequent = sorted((level for level, share in shares.items() if _RAREST <= share <= 1 - _RAREST), key=lambda one: -shares[one])
            kept = frequent[:1] if len(shares) == 2 and not summary.missing else frequent[:_LEVELS]  # noqa: PLR2004  (one says both)
            ranked.append([Code(name, level) for level in kept])
    turns = max(map(len, ranked), default=0)
    return tuple(codes[turn] for turn in range(turns) for codes in ranked if turn < len(codes))[:MOST_CODES]


def encode(sample: RowSample, *, codes: Sequence[Code], summaries: Mapping[str, Summary]) -> np.ndarray:
    """Return coded rows, float64 [rows, codes], not yet scaled; what is missing lies in the middle."""
    return np.column_stack([_encode(sample.values[code.signal], code, summaries[code.signal]) for code in codes])


def _encode(values: np.ndarray, code: Code, summary: Summary) -> np.ndarray:
    if code.level is not None:
        return (values == code.level).astype(np.float64)
    from scipy.special import ndtri

    points = np.asarray(summary.points)
    values = round_to_digits(values)
    below, upto = (np.searchsorted(points, values, side=side) for side in ("left", "right"))
    shares = (below + upto + 1) / (2 * len(points) + 2)
    scores: np.ndarray = np.clip(ndtri(shares), -_FARTHEST, _FARTHEST)
    return np.where(np.isfinite(values), scores, 0.0)


def scale_of(coded: np.ndarray) -> np.ndarray:
    """Mean and deviation of each code, [codes, 2]."""
    return np.column_stack([coded.mean(axis=0), np.maximum(coded.std(axis=0), _SMALLEST)])


def measure_moments(coded: np.ndarray, *, scales: np.ndarray) -> Moments:
    """Return the moments of coded rows, scaled by a reference and centred by themselves."""
    rows = len(coded)
    scaled = (coded - coded.mean(axis=0)) / scales[:, 1]
    covariance = scaled.T @ scaled / rows
    squares = scaled * scaled
    return Moments(rows, covariance, np.maximum(squares.T @ squares / rows - covariance**2, _SMALLEST))


def weigh_together(covariance: np.ndarray, codes: Sequence[Code]) -> np.ndarray:
    """Return the weights [codes, codes] of a row's score: the precision, against that of columns apart.

    The score is the logarithm of the ratio of both normal densities, but for a constant.
    """
    names = np.array([code.signal for code in codes], dtype=object)
    ridged = covariance + _RIDGE * np.eye(len(codes))
    apart = np.where(names[:, None] == names[None, :], ridged, 0.0)
    weights: np.ndarray = np.linalg.inv(apart) - np.linalg.inv(ridged)
    return weights / 2


def score_rows(coded: np.ndarray, *, scales: np.ndarray, scored: Sequence[int], weights: np.ndarray) -> np.ndarray:
    """Return a score each of rows of one time; low: it holds what did not go together.

    Centred by themselves: that a column moved as a whole is told elsewhere.
    """
    scaled = ((coded - coded.mean(axis=0)) / scales[:, 1])[:, list(scored)]
    return np.asarray(((scaled @ weights) * scaled).sum(axis=1))


def choose_scored(codes: Sequence[Code], importance: np.ndarray) -> np.ndarray:
    """Return the places of the codes of those columns that hold most of the importance (of each code), the heaviest first."""
    heaviest = {code.signal: share for code, share in zip(codes, importance.tolist(), strict=True)}
    ranked = sorted(heaviest, key=lambda name: -heaviest[name])
    upto = np.cumsum([heaviest[name] for name in ranked])
    kept = {name for name, share in zip(ranked, upto - [heaviest[name] for name in ranked], strict=True) if share < _MOST * upto[-1]}
    return np.array([place for place, code in enumerate(codes) if code.signal in kept], dtype=int)


def pool(parts: Sequence[Moments]) -> Moments:
    """Moments of several sets of rows, each centred by itself."""
    rows = np.array([part.rows for part in parts], np.float64)
    shares = rows / rows.sum()
    covariance = np.tensordot(shares, np.stack([part.covariance for part in parts]), axes=1)
    variance = np.tensordot(shares, np.stack([part.variance for part in parts]), axes=1)
    return Moments(int(rows.sum()), covariance, variance)


def pair_places(codes: Sequence[Code]) -> tuple[np.ndarray, np.ndarray]:
    """Return the places of all pairs of codes of different columns."""
    one, other = np.triu_indices(len(codes), 1)
    names = np.array([code.signal for code in codes], dtype=object)
    apart = names[one] != names[other] if len(codes) else np.empty(0, bool)
    return one[apart], other[apart]


def differences(past: Moments | Dependence, now: Moments, *, places: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return effect and p-value of each pair: the difference of correlations, at most 1, and how unlikely it is.

    The error of the current rows is taken from the larger of both variances: few rows do not know their own.
    """
    from scipy.special import ndtr

    if isinstance(past, Dependence):
        covariance, variance = np.asarray(past.covariance), np.asarray(past.variance)
    else:
        covariance, variance = past.covariance[places], past.variance[places]
    found, spread = now.covariance[places], np.maximum(variance, now.variance[places])
    apart = np.abs(found - covariance)
    z = apart / np.sqrt(variance / past.rows + spread / now.rows)
    return np.minimum(apart, 1.0), 2 * ndtr(-z)
