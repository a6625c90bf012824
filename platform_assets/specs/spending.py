"""What steps asked for, used and cost, and what was said when a run asked to start. Plain values; currency is the UAE dirham (AED)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

CURRENCY = "AED"
HOUR_SECONDS = 3600.0
NOBODY = ""  # tenant of a dataset that was brought up to date for no model in particular
Outcome = Literal["open", "done", "reused", "failed"]
Answer = Literal["admit", "hold", "refuse"]
Payer = tuple[str, str]  # tenant, model


@dataclass(frozen=True)
class Asked:
    """Resources that a step holds while it runs: cores and memory a node, GPUs (slots) over all nodes, price of one node for one hour."""

    profile: str = "local"
    region: str = "local"
    price_aed_per_hour: float = 0.0
    nodes: int = 1
    cpu: float | None = None
    memory_bytes: int | None = None
    gpus: int = 0

    def price(self, wall_seconds: float) -> float:
        """Price in AED of holding it for so long."""
        return self.price_aed_per_hour * self.nodes * wall_seconds / HOUR_SECONDS


@dataclass(frozen=True)
class Used:
    """What was seen of a step while it ran; None where nobody looked. Cores and memory are of the node that used most.

    `peak_memory_bytes` leaves mapped files out (the kernel takes their pages back when memory runs short), `cpu_cores_p95` was
    exceeded in 5 % of the time, `gpus` were seen over all nodes, `data_wait` is the share of the time spent waiting for data,
    `seconds` is how long it was watched.
    """

    peak_rss_bytes: int | None = None
    gpu_utilisation: float | None = None
    peak_gpu_memory_bytes: int | None = None
    peak_memory_bytes: int | None = None
    cpu_cores_mean: float | None = None
    cpu_cores_p95: float | None = None
    gpus: int | None = None
    data_wait: float | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class Entry:
    """One step on one profile. `outcome` open with a beat long past: its process died, and these are its last known figures."""

    run_id: str
    tenant: str
    model: str
    stage: str
    asked: Asked
    began: float
    wall_seconds: float
    cpu_seconds: float
    outcome: Outcome
    used: Used = field(default_factory=Used)

    @property
    def gpu_seconds(self) -> float:
        """Slots held times wall seconds."""
        return self.asked.gpus * self.wall_seconds

    @property
    def price_aed(self) -> float:
        """Profile price times nodes times wall hours."""
        return self.asked.price(self.wall_seconds)


@dataclass(frozen=True)
class Verdict:
    """Answer to a run that asks to start, with one sentence for its log. `expected`: AED by tenant and model.

    `share`: part of the asked trials and replicas that may run, 1 while the budgets are far from their end.
    """

    answer: Answer
    sentence: str
    expected: Mapping[Payer, float] = field(default_factory=dict)
    share: float = 1.0


@dataclass(frozen=True)
class Spending:
    """AED by tenant and model: spent this month, and promised to admitted runs beyond what they have spent so far."""

    spent: Mapping[Payer, float] = field(default_factory=dict)
    promised: Mapping[Payer, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Month:
    """A calendar month in UTC. What is spent belongs to the month in which its step began: that month's budget admitted it."""

    year: int
    number: int

    @classmethod
    def of(cls, at: float) -> Month:
        """Return the month of a time in epoch seconds."""
        day = datetime.fromtimestamp(at, tz=UTC)
        return cls(day.year, day.month)

    @classmethod
    def parse(cls, text: str) -> Month:
        """Read `2026-11`; anything else is a ValueError that says so."""
        try:
            day = datetime.strptime(text, "%Y-%m").replace(tzinfo=UTC)
        except ValueError:
            raise ValueError(f"{text!r} is not a month; write for example 2026-11") from None
        return cls(day.year, day.month)

    @property
    def begins(self) -> datetime:
        """First instant."""
        return datetime(self.year, self.number, 1, tzinfo=UTC)

    @property
    def next(self) -> Month:
        """Return the month after it."""
        return Month(self.year + self.number // 12, self.number % 12 + 1)

    def __str__(self) -> str:
        """Year and month, as `parse` reads them."""
        return f"{self.year:04d}-{self.number:02d}"
