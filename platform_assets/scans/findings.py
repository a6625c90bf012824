"""What a scan found, and whether it stops a pipeline."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Severity = Literal["none", "low", "medium", "high", "critical", "unknown"]
_STOPS: frozenset[Severity] = frozenset({"high", "critical", "unknown"})  # what nobody has judged is not taken to be harmless


@dataclass(frozen=True)
class Finding:
    """`name` is an advisory's id or a rule's, `where` a package's name or a file's path; `aliases` are other names of the same advisory."""

    name: str
    where: str
    severity: Severity
    text: str
    aliases: tuple[str, ...] = ()

    @property
    def stops(self) -> bool:
        """Whether a scan with this finding fails."""
        return self.severity in _STOPS

    def __str__(self) -> str:
        """One line for a terminal."""
        return f"{self.severity:<8} {self.name} {self.where}: {self.text}"
