"""A declared cycle: which phase of it a row stands in, and what the reference looked like at a window's phases. Nothing is judged here."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from platform_assets.stages.monitoring.sketch import Summary

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pyarrow as pa

    from platform_assets.specs.model import Season

_FEWEST = 100  # rows of a phase, below which the whole reference stands in for it
_HOURS = 3  # a phase of a day
_THINNED = 4  # one point of so many is kept a phase


@dataclass(frozen=True)
class Phase:
    """What the reference's rows of one phase looked like; inputs alone, since answers are held against unseen rows of any phase."""

    number: int
    signals: tuple[Summary, ...]


def phases_of(events: pa.ChunkedArray, season: Season) -> np.ndarray:
    """Return the phase of each event: three hours of a day, a day of the week (Monday is 0), a month of the year; -1 without a time."""
    import pyarrow.compute as pc

    if season == "day":
        found = pc.divide(pc.hour(events), _HOURS)
    elif season == "week":
        found = pc.day_of_week(events)
    else:
        found = pc.subtract(pc.month(events), 1)
    return np.asarray(pc.fill_null(found, -1).to_numpy(zero_copy_only=False), dtype=np.int64)


def shares_of(phases: np.ndarray) -> dict[int, float]:
    """Return the share of rows in each phase."""
    numbers, counts = np.unique(phases, return_counts=True)
    return dict(zip(numbers.tolist(), (counts / len(phases)).tolist(), strict=True))


def store_phase(number: int, summaries: Mapping[str, Summary]) -> Phase:
    """Keep of a phase what is needed to mix it, thinned out: a release carries up to twelve."""
    inputs = (summary for summary in summaries.values() if summary.feature)
    return Phase(number, tuple(replace(one, points=_thin(one.points)) for one in inputs))


def like_period(whole: Mapping[str, Summary], phases: Mapping[int, Phase], shares: Mapping[int, float]) -> dict[str, Summary]:
    """Return the reference as it would be with these shares of rows in each phase; the whole one stands in for a phase it does not know."""
    mixed = dict(whole)
    known = {number: {one.name: one for one in phase.signals} for number, phase in phases.items()}
    for name, summary in whole.items():
        if not summary.feature:
            continue
        parts: list[tuple[float, Summary]] = []
        for number, share in shares.items():
            found = known.get(number, {}).get(name)
            parts.append((share, found if found is not None and found.rows >= _FEWEST else summary))
        mixed[name] = mix(summary, parts)
    return mixed


def mix(whole: Summary, parts: list[tuple[float, Summary]]) -> Summary:
    """Return the mixture of summaries by shares that add up to 1. What it can be tested with are the rows of as precise a sample.

    Range and known values stay those of the whole: what another season has is not new, and not out of range.
    """
    rows = 1 / sum(share * share / max(part.rows, 1) for share, part in parts)
    missing = sum(share * part.missing / max(part.rows, 1) for share, part in parts)
    mixed = replace(whole, rows=round(rows), missing=round(missing * rows))
    if whole.kind == "number":
        held = [(share * (part.rows - part.missing) / max(part.rows, 1), part) for share, part in parts if part.points]
        return replace(mixed, points=_mix_points(held, count=len(whole.points)))
    totals = [max(sum((part.counts or {}).values()) if whole.kind == "words" else part.rows - part.missing, 1) for _, part in parts]
    size = rows * sum(share * total / max(part.rows, 1) for (share, part), total in zip(parts, totals, strict=True))
    counts = {
        word: round(
            size * sum(share * (part.counts or {}).get(word, 0) / total for (share, part), total in zip(parts, totals, strict=True))
        )
        for word in whole.counts or {}
    }
    return replace(mixed, counts=counts, lost=max(part.lost for _, part in parts))


def _mix_points(parts: list[tuple[float, Summary]], *, count: int) -> tuple[float, ...]:
    """Return points at evenly spaced ranks of a weighted mixture."""
    if not parts:
        return ()
    values = np.concatenate([part.points for _, part in parts])
    weights = np.concatenate([np.full(len(part.points), share / len(part.points)) for share, part in parts])
    order = np.argsort(values, kind="stable")
    upto = np.cumsum(weights[order])
    ranks = (np.arange(count) + 0.5) / count * upto[-1]
    return tuple(values[order][np.minimum(np.searchsorted(upto, ranks), len(values) - 1)].tolist())


def _thin(points: tuple[float, ...]) -> tuple[float, ...]:
    return points if len(points) <= _THINNED * _FEWEST else points[::_THINNED]
