"""What is counted per version: requests, rows, errors and a histogram of latency. Constant memory, no locks, no formatting."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field

from platform_assets.specs.looks import LATENCY_BOUNDS
from platform_assets.specs.records import ArmFigures
from platform_assets.specs.service import PACE_BOUNDS, PaceCounts

BOUNDS = LATENCY_BOUNDS


@dataclass
class Histogram:
    """Counts of durations in buckets; the last bucket is open."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS) + 1))
    total: float = 0.0

    def add(self, seconds: float) -> None:
        """Count one duration."""
        self.counts[bisect_left(BOUNDS, seconds)] += 1
        self.total += seconds

    def quantile_ms(self, share: float) -> float:
        """Duration in milliseconds below which this share lies, interpolated within its bucket; 0 where nothing was counted."""
        wanted = share * sum(self.counts)
        seen = 0
        for at, count in enumerate(self.counts):
            if count and seen + count >= wanted:
                low = BOUNDS[at - 1] if at else 0.0
                high = BOUNDS[at] if at < len(BOUNDS) else BOUNDS[-1]
                return 1000 * (low + (high - low) * (wanted - seen) / count)
            seen += count
        return 0.0


@dataclass
class Pace:
    """Counts of runs after pauses of a like length."""

    runs: int = 0
    rows: int = 0
    cpu_seconds: float = 0.0
    latency_counts: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS) + 1))


@dataclass
class Figures:
    """One version's figures since the last change of traffic."""

    version: str
    requests: int = 0
    rows: int = 0
    errors: int = 0
    latency: Histogram = field(default_factory=Histogram)
    paces: list[Pace] = field(default_factory=lambda: [Pace() for _ in range(len(PACE_BOUNDS) + 1)])
    pace: int = 0  # of the run under way

    def begin(self, pause_seconds: float) -> None:
        """Have what is answered next count for its pace: that of the pause before its run."""
        self.pace = bisect_left(PACE_BOUNDS, pause_seconds)

    def ran(self, rows: int, cpu_seconds: float) -> None:
        """Count one run and its replies."""
        pace = self.paces[self.pace]
        pace.runs += 1
        pace.rows += rows
        pace.cpu_seconds += cpu_seconds

    def answered(self, rows: int, seconds: float) -> None:
        """Count one answered request: its rows, and what it took."""
        self.requests += 1
        self.rows += rows
        latency = self.latency
        bucket = bisect_left(BOUNDS, seconds)
        latency.counts[bucket] += 1
        latency.total += seconds
        self.paces[self.pace].latency_counts[bucket] += 1

    def failed(self) -> None:
        """Count one request that this version could not answer."""
        self.requests += 1
        self.errors += 1

    def record(self) -> ArmFigures:
        """As the port hands it out."""
        return ArmFigures(
            version=self.version,
            requests=self.requests,
            rows=self.rows,
            errors=self.errors,
            latency_ms_p50=self.latency.quantile_ms(0.5),
            latency_ms_p99=self.latency.quantile_ms(0.99),
            latency_counts=tuple(self.latency.counts),
            paces=tuple(PaceCounts(one.runs, one.rows, one.cpu_seconds, tuple(one.latency_counts)) for one in self.paces),
        )


@dataclass
class Comparison:
    """Challenger against champion on the same rows, in shadow."""

    compared_rows: int = 0
    disagreements: int = 0
    skipped_requests: int = 0
