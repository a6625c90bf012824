"""How many answered rows went where on their way into a production log."""

from __future__ import annotations

from dataclasses import astuple, dataclass


@dataclass(frozen=True)
class LogCounts:
    """Rows of one model since its log began: `accepted` is every row that was answered, and all others are what became of them.

    `dropped`: refused by the bound on waiting rows or by a disk that could not be written; `lost`: gone with a killed process.
    """

    accepted: int = 0
    written: int = 0
    dropped: int = 0
    lost: int = 0

    @property
    def waiting(self) -> int:
        """Rows in the memory of a running server, or of one that was killed and not started again."""
        return self.accepted - self.written - self.dropped - self.lost

    @property
    def missing(self) -> int:
        """Rows that were answered and never will be in the log."""
        return self.dropped + self.lost

    def __add__(self, other: LogCounts) -> LogCounts:
        return LogCounts(*(ours + theirs for ours, theirs in zip(astuple(self), astuple(other), strict=True)))
