"""Which candidate becomes the release: the cheapest on the Pareto front within the declared limits. Measuring them is compression's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from platform_assets.errors import ReleaseError
from platform_assets.specs.model import HIGHER_IS_BETTER
from platform_assets.specs.records import Candidate, Rejection, Selection

if TYPE_CHECKING:
    from collections.abc import Sequence

    from platform_assets.specs.model import CompressionSpec


def find_front(candidates: Sequence[Candidate], *, metric: str) -> tuple[Candidate, ...]:
    """Return the candidates that no other one dominates in leading metric, CPU at one row and size; order is kept."""
    return tuple(one for one in candidates if not any(_dominates(other, one, metric) for other in candidates))


def select(candidates: Sequence[Candidate], rejected: Sequence[Rejection], *, metric: str, compression: CompressionSpec) -> Selection:
    """Choose the cheapest in CPU on the front of those within the latency budget, among those within the tolerated drop.

    Ties fall to the smaller, then the better, then by name. Every other candidate gets one reason; `rejected` are those that could
    not be made. No candidate within both limits is a ReleaseError that names the nearest.
    """
    quick = [one for one in candidates if one.latency_ms_p99 <= compression.latency_ms_p99]
    front = find_front(quick, metric=metric)
    eligible = [one for one in front if one.drop <= compression.tolerate_drop]
    if not eligible:
        raise ReleaseError(_none_fits(candidates, metric, compression))
    chosen = min(eligible, key=lambda one: (one.cpu_us_b1, one.size_bytes, -_goodness(one, metric), one.name))
    ordered = sorted(candidates, key=lambda one: one.name)
    reasons = [Rejection(one.name, _reason(one, chosen, quick, metric, compression)) for one in ordered if one is not chosen]
    return Selection(
        chosen=chosen,
        front=tuple(sorted(one.name for one in front)),
        rejected=(*reasons, *sorted(rejected, key=lambda rejection: rejection.name)),
        candidates=tuple(ordered),
    )


def _goodness(one: Candidate, metric: str) -> float:
    return one.metrics[metric] if HIGHER_IS_BETTER[metric] else -one.metrics[metric]


def _costs(one: Candidate, metric: str) -> tuple[float, float, float]:
    return (-_goodness(one, metric), one.cpu_us_b1, one.size_bytes)


def _dominates(one: Candidate, other: Candidate, metric: str) -> bool:
    ours, theirs = _costs(one, metric), _costs(other, metric)
    return ours != theirs and all(mine <= yours for mine, yours in zip(ours, theirs, strict=True))


def _reason(one: Candidate, chosen: Candidate, quick: Sequence[Candidate], metric: str, compression: CompressionSpec) -> str:
    if one.latency_ms_p99 > compression.latency_ms_p99:
        return f"p99 of {one.latency_ms_p99:.2f} ms is over the budget of {compression.latency_ms_p99:g} ms"
    if one.drop > compression.tolerate_drop:
        return f"loses {one.drop:.4f} {metric}, {compression.tolerate_drop:g} is tolerated"
    better = sorted(other.name for other in quick if _dominates(other, one, metric))
    if better:
        return f"{better[0]} is at least as good, as fast and as small"
    return f"costs {one.cpu_us_b1:.0f} us of CPU a row, {chosen.name} {chosen.cpu_us_b1:.0f} us"


def _none_fits(candidates: Sequence[Candidate], metric: str, compression: CompressionSpec) -> str:
    asked = (
        f"a drop of at most {compression.tolerate_drop:g} {metric} and a p99 of at most {compression.latency_ms_p99:g} ms were asked for"
    )
    if not candidates:
        return f"{asked}, but there is no candidate at all; see why each one failed in the asset `candidates`"
    near = min(candidates, key=lambda one: (max(one.latency_ms_p99 / compression.latency_ms_p99, 1.0), one.drop))
    found = f"the nearest is {near.name} with a drop of {near.drop:.4f} and a p99 of {near.latency_ms_p99:.2f} ms"
    return f"{asked}, {found}; loosen compression.tolerate_drop or compression.latency_ms_p99"
