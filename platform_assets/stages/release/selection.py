"""Which candidate becomes the release: the cheapest on the Pareto front within the declared limits. Measuring them is compression's.

How good one is, here, is its loss on the calibration rows and one standard error (Breiman et al., Classification and Regression Trees,
1984, take that much for equal): of 234 pictures a student lost 0.007, and 0.03 of those that came after. The holdout reports, it does not
choose.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from platform_assets.errors import ReleaseError
from platform_assets.specs.candidates import Candidate, Rejection, Selection

if TYPE_CHECKING:
    from collections.abc import Sequence

    from platform_assets.specs.model import CompressionSpec


AS_CHEAP = 1.1  # times the CPU of the cheapest: nearer than that, a measurement on a shared machine tells nothing


def find_front(candidates: Sequence[Candidate]) -> tuple[Candidate, ...]:
    """Return the candidates that no other one dominates in loss, CPU at one row and size; order is kept."""
    return tuple(one for one in candidates if not any(_dominates(other, one) for other in candidates))


def select(candidates: Sequence[Candidate], rejected: Sequence[Rejection], *, metric: str, compression: CompressionSpec) -> Selection:
    """Choose on the front of those within the latency budget and the tolerated drop: of those as cheap as the cheapest the smallest.

    Ties fall to the cheaper, then the better, then by name. Every other candidate gets one reason; `rejected` are those that could not be
    made or were refused. No candidate within both limits is a ReleaseError that names the nearest.
    """
    quick = [one for one in candidates if one.latency_ms_p99 <= compression.latency_ms_p99]
    front = find_front(quick)
    eligible = [one for one in front if one.surely_lost <= compression.tolerate_drop]
    if not eligible:
        raise ReleaseError(_none_fits(candidates, metric, compression))
    least = min(one.cpu_us_b1 for one in eligible)
    as_cheap = [one for one in eligible if one.cpu_us_b1 <= AS_CHEAP * least]
    chosen = min(as_cheap, key=lambda one: (one.size_bytes, one.cpu_us_b1, one.surely_lost, one.name))
    ordered = sorted(candidates, key=lambda one: one.name)
    reasons = [Rejection(one.name, _reason(one, chosen, quick, metric, compression)) for one in ordered if one is not chosen]
    return Selection(
        chosen=chosen,
        front=tuple(sorted(one.name for one in front)),
        rejected=(*reasons, *sorted(rejected, key=lambda rejection: rejection.name)),
        candidates=tuple(ordered),
    )


def _costs(one: Candidate) -> tuple[float, float, float]:
    return one.surely_lost, one.cpu_us_b1, one.size_bytes


def _dominates(one: Candidate, other: Candidate) -> bool:
    ours, theirs = _costs(one), _costs(other)
    return ours != theirs and all(mine <= yours for mine, yours in zip(ours, theirs, strict=True))


def _reason(one: Candidate, chosen: Candidate, quick: Sequence[Candidate], metric: str, compression: CompressionSpec) -> str:
    if one.latency_ms_p99 > compression.latency_ms_p99:
        return f"p99 of {one.latency_ms_p99:.2f} ms is over the budget of {compression.latency_ms_p99:g} ms"
    if one.surely_lost > compression.tolerate_drop:
        return f"loses {_describe_loss(one)} {metric}, {compression.tolerate_drop:g} is tolerated"
    better = sorted(other.name for other in quick if _dominates(other, one))
    if better:
        return f"{better[0]} is at least as good, as fast and as small"
    if one.cpu_us_b1 <= AS_CHEAP * chosen.cpu_us_b1:
        return f"{chosen.name} is as cheap and has {chosen.size_bytes} bytes, this one {one.size_bytes}"
    return f"costs {one.cpu_us_b1:.0f} us of CPU a row, {chosen.name} {chosen.cpu_us_b1:.0f} us"


def _describe_loss(one: Candidate) -> str:
    return f"{one.drop:.4f}" + (f" (give or take {one.drop_error:.4f})" if one.drop_error else "")


def _none_fits(candidates: Sequence[Candidate], metric: str, compression: CompressionSpec) -> str:
    asked = (
        f"a drop of at most {compression.tolerate_drop:g} {metric} and a p99 of at most {compression.latency_ms_p99:g} ms were asked for"
    )
    if not candidates:
        return f"{asked}, but there is no candidate at all; see why each one failed in the asset `candidates`"
    near = min(candidates, key=lambda one: (max(one.latency_ms_p99 / compression.latency_ms_p99, 1.0), one.surely_lost))
    found = f"the nearest is {near.name} with a drop of {_describe_loss(near)} and a p99 of {near.latency_ms_p99:.2f} ms"
    return f"{asked}, {found}; loosen compression.tolerate_drop or compression.latency_ms_p99"
