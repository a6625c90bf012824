"""What names rows that must go, in a table: values by column, texts inside columns of JSON, times. Standard library only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True)
class Marks:
    """Rows are meant by columns: as text one of `equal`, with one of `inside` as a JSON string, or a time before `before` (naive UTC)."""

    equal: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    inside: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    before: Mapping[str, datetime] = field(default_factory=dict)

    @property
    def columns(self) -> list[str]:
        """Every column that is looked at."""
        return list(dict.fromkeys([*self.equal, *self.inside, *self.before]))


@dataclass(frozen=True)
class ErasuresDone:
    """How many persons were erased, how many rows of one dataset were theirs, and when the newest was done."""

    erasures: int
    rows: int
    newest: str


@dataclass(frozen=True)
class RetentionDone:
    """One enforcement of retention: `before` is the earliest time kept ("" where nothing has a period), `rows` were removed by table."""

    before: str
    rows: dict[str, int]
    training_sets: tuple[str, ...]
    enforced_at: str
