"""What is told of a training while it runs, to whoever logs it. Plain values; how they come about is in stages.telemetry."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Point:
    """Figures of a training at one time (epoch seconds), after so many steps."""

    at: float
    step: int
    figures: Mapping[str, float]
