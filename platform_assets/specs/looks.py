"""What a rollout looks at: buckets of latency, counts of each criterion, and one look with its evidence. Standard library only."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

# Bounds of latency in seconds, each 25 % above the last, 20 us to 60 s: a quantile is then known to within 12 %.
LATENCY_BOUNDS = tuple(20e-6 * 1.25**step for step in range(68))


@dataclass(frozen=True)
class Tally:
    """Trials of one criterion, and how many of them spoke against the challenger."""

    trials: int = 0
    hits: int = 0

    @property
    def share(self) -> float:
        """Share that spoke against it."""
        return self.hits / self.trials if self.trials else 0.0

    def __add__(self, other: Tally) -> Tally:
        return Tally(self.trials + other.trials, self.hits + other.hits)

    def __sub__(self, other: Tally) -> Tally:
        return Tally(self.trials - other.trials, self.hits - other.hits)


@dataclass(frozen=True)
class Look:
    """One look at a stage's figures: `tallies` by criterion since the stage began, e-values as decimal logarithms.

    `against`: evidence that the share is above its limit, from this stage or an earlier one on. `in_favour`: evidence that it is below,
    over all stages that count for it. `slow_ms`: from where on a request counted as slow; None until the champion has been timed.
    """

    stage: str
    seconds: float
    slow_ms: float | None
    tallies: dict[str, Tally] = field(default_factory=dict)
    against: dict[str, float] = field(default_factory=dict)
    in_favour: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class LookLog:
    """Every look of a rollout at which a count had changed, with the limits and the error rates that were declared."""

    limits: dict[str, float]
    false_rollback: float
    false_promotion: float
    against_passes: float
    in_favour_passes: float
    looks: tuple[Look, ...]


def slower_than(counts: Sequence[int], *, milliseconds: float) -> Tally:
    """Of requests counted in LATENCY_BOUNDS, tell how many took longer, the limit rounded up to a bound."""
    first = bisect_left(LATENCY_BOUNDS, milliseconds / 1000) + 1
    return Tally(sum(counts), sum(counts[first:]))
