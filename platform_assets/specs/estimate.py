"""What a window is estimated at before its labels come. How it is estimated is monitoring's."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class WindowEstimate:
    """Leading metric of one window as its answers' calibrated confidence has it, without any label, and its 95 % interval.

    `dropped`: the whole interval is worse than promised by more than is allowed. One that holds proves nothing: a changed concept cannot
    show in it.
    """

    window: int
    last_event: str
    metric: str
    value: float
    low: float
    high: float
    promised: float
    dropped: bool
    sentence: str
