"""How a release is served now against what it showed itself: p99, errors, CPU. It alerts people: no retraining mends a slow server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from platform_assets.specs.looks import LATENCY_BOUNDS
from platform_assets.specs.service import PaceCounts, ServiceCounts, ServiceFinding, ServiceReport

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from platform_assets.specs.model import MonitoringSpec
    from platform_assets.specs.records import ArmFigures

_SLOWEST = 0.01
_GRAVE = 2.0  # times its threshold
_ENOUGH = 100  # requests at one pace for its p99 to be the second slowest
_STEP = LATENCY_BOUNDS[1] / LATENCY_BOUNDS[0]


def extend_service(
    previous: Sequence[ServiceReport], *, live: ArmFigures, rollout: ArmFigures | None, at: str, spec: MonitoringSpec
) -> tuple[ServiceReport, ...]:
    """Judge what `live` answered since the last report of its version, once that is enough; `rollout`: its figures of the rollout.

    A release without enough requests in its rollout (the first one has none) is held against its own first live ones.
    """
    seen = counts_of(live)
    before = next((report for report in reversed(previous) if report.version == live.version), None)
    counted = subtract(seen, before.seen) if before else seen
    if counted.requests < spec.service.min_requests:
        return tuple(previous)
    source: Literal["rollout", "first_live_requests"] = before.source if before else "first_live_requests"
    against = before.against if before else None
    if against is None and rollout is not None and rollout.requests >= spec.service.min_requests:
        against, source = counts_of(rollout), "rollout"
    findings = tuple(judge_service(against, counted, spec=spec)) if against else ()
    return (*previous, ServiceReport(live.version, at, source, against or counted, counted, seen, findings))


def judge_service(before: ServiceCounts, now: ServiceCounts, *, spec: MonitoringSpec) -> Iterator[ServiceFinding]:
    """Hold a span against what the release showed. It regressed where the effect is above its threshold, and that is no chance.

    p99 and CPU are compared pace by pace, those that both have; a span at another pace altogether says nothing of them.
    """
    from scipy.special import bdtrc

    limits, significance = spec.service, spec.significance
    paces = [(was, is_) for was, is_ in zip(before.paces, now.paces, strict=False) if min(_requests(was), _requests(is_)) >= _ENOUGH]
    slowness = _slowness(paces)
    if slowness.any():
        effect = _STEP ** _quantile(slowness, 1 - _SLOWEST)
        slow = int(slowness[len(LATENCY_BOUNDS) + 1 + int(np.ceil(np.log(limits.latency_ratio) / np.log(_STEP))) :].sum())
        chance = float(bdtrc(slow - 1, int(slowness.sum()), _SLOWEST)) if slow else 1.0
        is_ms = quantile_ms(np.sum([pace.latency_counts for _, pace in paces], axis=0), 1 - _SLOWEST)
        found = effect > limits.latency_ratio and chance < significance
        yield ServiceFinding(
            "latency_p99", effect, limits.latency_ratio, chance, found, _severity(effect / limits.latency_ratio, regressed=found),
            was=f"{is_ms / effect:.3g} ms", now=f"{is_ms:.3g} ms",
        )  # fmt: skip
    if before.requests and now.requests:
        was_share, share = before.errors / before.requests, now.errors / now.requests
        effect, allowed = max(0.0, share - was_share), min(1.0, was_share + limits.error_share)
        chance = float(bdtrc(now.errors - 1, now.requests, allowed)) if now.errors else 1.0
        found = effect > limits.error_share and chance < significance
        yield ServiceFinding(
            "errors", effect, limits.error_share, chance, found, _severity(effect / limits.error_share, regressed=found),
            was=f"{was_share:.2%}", now=f"{share:.2%}",
        )  # fmt: skip
    spent = sum(pace.cpu_seconds for _, pace in paces)
    if spent and all(was.cpu_seconds for was, _ in paces):
        # More rows a run cost more a run and less a row: only what costs more by both is dearer.
        expected = [sum(was.cpu_seconds / getattr(was, of) * getattr(is_, of) for was, is_ in paces) for of in ("runs", "rows")]
        effect, found = spent / max(expected), spent / max(expected) > limits.cpu_ratio
        us = 1e6 * spent / sum(_requests(pace) for _, pace in paces)
        yield ServiceFinding(
            "cpu", effect, limits.cpu_ratio, None, found, _severity(effect / limits.cpu_ratio, regressed=found),
            was=f"{us / effect:.0f} us a request", now=f"{us:.0f} us a request",
        )  # fmt: skip


def counts_of(arm: ArmFigures) -> ServiceCounts:
    """Return the counts of one version as the server hands them out."""
    return ServiceCounts(arm.requests, arm.errors, arm.paces)


def subtract(seen: ServiceCounts, before: ServiceCounts) -> ServiceCounts:
    """Return what was counted since; all of it where the server began anew (a restart, a change of traffic) and counted less."""
    requests, errors = seen.requests - before.requests, seen.errors - before.errors
    paces = [
        PaceCounts(
            one.runs - other.runs, one.rows - other.rows, one.cpu_seconds - other.cpu_seconds,
            tuple(more - less for more, less in zip(one.latency_counts, other.latency_counts, strict=True)),
        )
        for one, other in zip(seen.paces, before.paces, strict=False)
    ]  # fmt: skip
    if min(requests, errors, *(pace.runs for pace in paces), *(min(pace.latency_counts, default=0) for pace in paces), 0) < 0:
        return seen
    return ServiceCounts(requests, errors, tuple(paces) or seen.paces)


def quantile_ms(counts: Sequence[int] | np.ndarray, share: float) -> float:
    """Latency in milliseconds that this share of requests stays within: the upper bound of its bucket; 0 where nothing was counted."""
    return 1000 * LATENCY_BOUNDS[min(_bucket(counts, share), len(LATENCY_BOUNDS) - 1)] if sum(counts) else 0.0


def _slowness(paces: Sequence[tuple[PaceCounts, PaceCounts]]) -> np.ndarray:
    """Count the requests of a span by how many buckets they are above the release's p99 at their pace; nil lies in the middle."""
    middle = len(LATENCY_BOUNDS) + 1
    found = np.zeros(2 * middle + 1, int)
    for was, is_ in paces:
        first = middle - _bucket(was.latency_counts, 1 - _SLOWEST)
        found[first : first + len(is_.latency_counts)] += is_.latency_counts
    return found


def _quantile(slowness: np.ndarray, share: float) -> int:
    return _bucket(slowness, share) - (len(LATENCY_BOUNDS) + 1)


def _bucket(counts: Sequence[int] | np.ndarray, share: float) -> int:
    """Place of the first bucket up to which this share is counted."""
    upto = np.cumsum(counts)
    return int(np.searchsorted(upto, share * upto[-1] - 1e-9)) if len(upto) else 0


def _requests(pace: PaceCounts) -> int:
    return sum(pace.latency_counts)


def _severity(ratio: float, *, regressed: bool) -> Literal["", "warning", "error"]:
    return "" if not regressed else "error" if ratio > _GRAVE else "warning"
