"""How a release is served: counts of its requests, and what of it got worse than the release itself showed. Judging is monitoring's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

What = Literal["latency_p99", "errors", "cpu"]
NAMES: dict[What, str] = {"latency_p99": "p99", "errors": "errors", "cpu": "CPU"}
# Bounds of the pause before a run, in seconds. What wakes up after a pause meets cold caches and a slow clock: after 10 ms the same request
# took 8 times the CPU and 5 times the p99 of one among many, so that figures are comparable at a like pace alone.
PACE_BOUNDS = (0.001, 0.002, 0.004, 0.008, 0.016, 0.032)


@dataclass(frozen=True)
class PaceCounts:
    """Runs of the model after pauses of a like length, in PACE_BOUNDS; CPU of runs and replies; latency in the buckets of specs.looks."""

    runs: int = 0
    rows: int = 0
    cpu_seconds: float = 0.0
    latency_counts: tuple[int, ...] = ()


@dataclass(frozen=True)
class ServiceCounts:
    """What the server counted for one version."""

    requests: int = 0
    errors: int = 0
    paces: tuple[PaceCounts, ...] = ()


@dataclass(frozen=True)
class ServiceFinding:
    """One figure of a span against the release's own, at a like pace.

    `effect` counts above `threshold`: of latency and CPU the ratio to what the release showed, of errors the share that came on top.
    `p_value`: chance of as much where the effect is at its threshold; None of a mean, which has enough requests behind it.
    """

    what: What
    effect: float
    threshold: float
    p_value: float | None
    regressed: bool
    severity: Literal["", "warning", "error"]
    was: str
    now: str


@dataclass(frozen=True)
class ServiceReport:
    """One span of requests that a version answered, since the report before this one.

    `against`: what the release showed, `source` when; `seen`: all that the server had counted at the end, from which the next span is told.
    `at`: the newest event that was answered, on the data's clock.
    """

    version: str
    at: str
    source: Literal["rollout", "first_live_requests"]
    against: ServiceCounts
    counted: ServiceCounts
    seen: ServiceCounts
    findings: tuple[ServiceFinding, ...] = ()

    @property
    def regressed(self) -> tuple[ServiceFinding, ...]:
        """What got worse, the gravest first."""
        found = (one for one in self.findings if one.regressed)
        return tuple(sorted(found, key=lambda one: -one.effect / one.threshold))

    @property
    def sentence(self) -> str:
        """What a person reads of it."""
        place = f"{self.version}, {self.counted.requests:,} requests" + (f" until {self.at}" if self.at else "")
        if not self.findings:
            return f"{place}: what later requests are held against"
        worse = "; ".join(f"{NAMES[one.what]} {one.now}, the release showed {one.was}" for one in self.regressed)
        return f"{place}: {worse or 'served as the release showed'}"
