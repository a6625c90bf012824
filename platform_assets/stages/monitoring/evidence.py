"""What one signal's summary says against another's: how far values moved, and what is missing, new, vanished, out of range or constant.

Nothing is decided here: an effect in [0, 1] and an uncorrected p-value each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from platform_assets.stages.monitoring.signals import LABEL, embedding_column
from platform_assets.stages.monitoring.statistics import (
    chi_squared_p_value,
    ks_distance,
    ks_p_value,
    surge_p_value,
    total_variation,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from platform_assets.specs.records import Layer
    from platform_assets.stages.monitoring.sketch import Summary

QUALITY = ("missing", "new", "vanished", "out of range", "constant")
_EXPECTED = 20  # rows a window is expected to hold of a category before its absence says something
_BESIDE = 0.1  # of the width of the range: a record by a little is no other unit
_FREQUENT = 5  # rows that a window is expected to hold of a category for it to be compared by itself
_OTHER = "(other)"


@dataclass(frozen=True)
class Found:
    """One finding, before anything is decided. `name` is unique among those of a window."""

    name: str
    feature: str
    layer: Layer
    statistic: str
    effect: float
    p_value: float
    was: str
    now: str


def weigh_signal(past: Summary, now: Summary) -> Iterator[Found]:
    """Yield the distance of known values, then whatever quality findings are above nothing."""
    layer = _layer(past)
    if past.kind == "number":
        yield _weigh_numbers(past, now, layer)
        if layer == "column":  # answers have their own range with every release
            yield from _weigh_range(past, now)
    else:
        yield _weigh_words(past, now, layer)
        if past.kind == "category" and not past.lost:
            yield from _weigh_categories(past, now)
    if now.missing:
        p_value = surge_p_value(now.missing, now.rows, before=past.missing, before_rows=past.rows)
        effect = now.missing / now.rows - _share(past.missing, past.rows)
        yield _quality(past, "missing", effect, p_value, was=_percent(past.missing, past.rows), now=_percent(now.missing, now.rows))


def _layer(past: Summary) -> Layer:
    if not past.feature:
        return "label" if past.name == LABEL else "answer"
    return "embedding" if past.name.startswith(embedding_column(past.feature, "")) else "column"


def _weigh_numbers(past: Summary, now: Summary, layer: Layer) -> Found:
    before, after = np.asarray(past.points), np.asarray(now.points)
    effect = ks_distance(before, after)
    p_value = ks_p_value(effect, reference_rows=past.rows - past.missing, current_rows=now.rows - now.missing)
    return Found(past.name, past.feature, layer, "ks", effect, p_value, _middle(before), _middle(after))


def _weigh_words(past: Summary, now: Summary, layer: Layer) -> Found:
    before, after, names = count_cells(past, now)
    effect, p_value = 0.0, 1.0
    if before.sum() and after.sum():
        effect = total_variation(before, after)
        if past.kind == "words":  # words of a text come together: as many draws as there are texts, at most
            before, after = (counts * min(1.0, summary.rows / counts.sum()) for counts, summary in ((before, past), (after, now)))
        p_value = chi_squared_p_value(before, after)
    shares = [counts / max(counts.sum(), 1) for counts in (before, after)]
    most = int(np.abs(shares[1] - shares[0]).argmax())
    was, then = (f"{names[most]} {share[most]:.1%}" for share in shares)
    return Found(past.name, past.feature, layer, "total_variation", effect, p_value, was, then)


def count_cells(past: Summary, now: Summary) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Counts of both over the same values; those of which few are expected, and what neither could tell apart, are one value more.

    Many rare values differ by luck alone, and the sum of their differences would hide what the frequent ones say.
    """
    before, after = past.counts or {}, now.counts or {}
    known, rows = (summary.rows - summary.missing for summary in (past, now))
    if past.kind == "words":
        known, rows = (sum(counts.values()) for counts in (before, after))
    enough = _FREQUENT * known / max(min(rows, known), 1)
    names = sorted(name for name, count in before.items() if count >= enough)
    cells = [np.array([counts.get(name, 0) for name in names], np.float64) for counts in (before, after)]
    rest = [max(total - counts.sum(), 0.0) for total, counts in zip((known, rows), cells, strict=True)]
    return np.append(cells[0], rest[0]), np.append(cells[1], rest[1]), [*names, _OTHER]


def _weigh_range(past: Summary, now: Summary) -> Iterator[Found]:
    points, known = np.asarray(now.points), now.rows - now.missing
    if not len(points) or not past.points:
        return
    beside = _BESIDE * (past.high - past.low)
    beyond = float(np.mean((points < past.low - beside) | (points > past.high + beside)))
    if beyond:
        p_value = surge_p_value(round(beyond * known), known, before=0, before_rows=past.rows - past.missing)
        yield _quality(past, "out of range", beyond, p_value, was=_range(past), now=_range(now))
    if now.low == now.high and past.low < past.high:
        same = float(np.mean(np.asarray(past.points) == now.low))
        yield _quality(past, "constant", 1 - same, same**known, was=_range(past), now=f"always {now.low:g}")


def _weigh_categories(past: Summary, now: Summary) -> Iterator[Found]:
    before, after = past.counts or {}, now.counts or {}
    known, before_known = now.rows - now.missing, past.rows - past.missing
    if not known or not before_known:
        return
    new = {name: count for name, count in after.items() if name not in before}
    if new:
        count = sum(new.values()) + (known - sum(after.values()) if now.lost else 0)
        once = sum(one == 1 for one in before.values())  # Good 1953: what came once tells how much has not come yet
        p_value = surge_p_value(count, known, before=once, before_rows=before_known)
        yield _quality(past, "new", count / known, p_value, was="none", now=_name_some(new, known))
    gone = {name: count for name, count in before.items() if name not in after and count * known >= _EXPECTED * before_known}
    if gone and not now.lost:
        share = sum(gone.values()) / before_known
        yield _quality(past, "vanished", share, float((1 - share) ** known), was=_name_some(gone, before_known), now="none")


def _quality(past: Summary, what: str, effect: float, p_value: float, *, was: str, now: str) -> Found:
    return Found(f"{past.name} {what}", past.feature, "quality", what, max(effect, 0.0), p_value, was=was, now=now)


def _share(count: int, rows: int) -> float:
    return count / rows if rows else 0.0


def _percent(count: int, rows: int) -> str:
    return f"{_share(count, rows):.1%}"


def _middle(points: np.ndarray) -> str:
    return f"median {np.median(points):.4g}" if len(points) else "none"


def _range(summary: Summary) -> str:
    return f"{summary.low:g} to {summary.high:g}"


def _name_some(counts: dict[str, int], rows: int) -> str:
    most = sorted(counts, key=lambda name: -counts[name])[:3]
    return ", ".join(f"{name} {counts[name] / rows:.1%}" for name in most) + (" and others" if len(counts) > len(most) else "")
