"""What names a person's rows in a table: values by column, and texts inside columns of JSON. Standard library only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Marks:
    """A row is meant where a column, as text, equals one of its `equal` values, or holds one of its `inside` as a JSON string."""

    equal: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    inside: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def columns(self) -> list[str]:
        """Every column that is looked at."""
        return list(dict.fromkeys([*self.equal, *self.inside]))


@dataclass(frozen=True)
class ErasuresDone:
    """How many persons were erased, how many rows of one dataset were theirs, and when the newest was done."""

    erasures: int
    rows: int
    newest: str
