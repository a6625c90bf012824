"""What was found of the feed of a model in production: windows whose rows are not what the source meant to send."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class FeedFault:
    """One window of the production log whose feed was broken: what is wrong, the surest first, and the keys of its rows."""

    window: int
    first_row: int
    last_row: int
    first_event: str
    last_event: str
    kinds: tuple[str, ...]
    sentence: str
    keys: tuple[str, ...]


@dataclass(frozen=True)
class WindowEnd:
    """The last row of a window in the order in which they are cut: event and answer in microseconds since 1970, and the answer's id."""

    event: int
    time: int
    prediction_id: str


@dataclass(frozen=True)
class FeedReport:
    """Windows that were held against a healthy feed so far, and those of them that were at fault.

    `seen_until`: of each window the newest answer that the log held when it was judged; what comes in behind it was not judged with it.
    `ends`: where the newest windows ended, so that an erased row shifts none; those before were cut by position.
    """

    windows: int = 0
    faults: tuple[FeedFault, ...] = ()
    seen_until: tuple[str, ...] = ()
    ends: tuple[WindowEnd, ...] = ()

    @property
    def now(self) -> FeedFault | None:
        """The fault of the newest window; None where that one is healthy."""
        return self.faults[-1] if self.faults and self.faults[-1].window == self.windows - 1 else None
