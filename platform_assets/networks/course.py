"""What one training is given, beside its module and its rows, and how two of them differ."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from platform_assets.networks.companions import Figures
from platform_assets.networks.stopping import Stop
from platform_assets.networks.trail import Trail

if TYPE_CHECKING:
    from platform_assets.networks.companions import Report
    from platform_assets.networks.launch import LoggedFabric
    from platform_assets.networks.plans import RunPlan, TrainingPlan

Judge = Callable[[nn.Module], Mapping[str, float]]


@dataclass(frozen=True)
class Course:
    """How one training runs and whom it tells; without a `folder` nothing is kept and it cannot be resumed."""

    plan: TrainingPlan
    run: RunPlan
    fabric: LoggedFabric
    report: Report
    name: str
    folder: Path | None = None
    stop: Stop = field(default_factory=Stop)
    figures: Figures = field(default_factory=Figures)
    trail: Trail = field(default_factory=Trail)


def difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Say in what the identity of a saved state differs from the one that wants it."""
    if before["rows"] != now["rows"]:
        return f"{before['rows']} rows then, {now['rows']} now"
    names = [name for name, value in now["plan"].items() if before["plan"].get(name) != value]
    return ", ".join(f"{name} was {before['plan'].get(name)!r} and is {now['plan'][name]!r}" for name in names)
