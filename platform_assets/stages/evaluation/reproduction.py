"""Whether a training made again is the one recorded: bit for bit where it computed under the same conditions, by its metric elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from platform_assets.networks.comparison import WeightsCompared
    from platform_assets.networks.conditions import Conditions


@dataclass(frozen=True)
class Reproduction:
    """The word, and why."""

    outcome: Literal["equal", "within_tolerance", "different"]
    sentence: str


def judge_reproduction(
    weights: WeightsCompared,
    *,
    recorded: Sequence[Conditions],
    again: Conditions,
    metric: str,
    before: float,
    after: float,
    tolerance: float,
) -> Reproduction:
    """Weights must be equal in every bit where conditions are; elsewhere `metric` may differ by `tolerance`.

    `recorded` are the conditions of the recorded training in order, where they changed.
    """
    if weights.different == 0:
        return Reproduction("equal", f"all {weights.numbers:,} weights are equal, bit for bit")
    unequal = f"{weights.different:,} of {weights.numbers:,} weights differ, by at most {weights.largest:.3g}"
    why = _other_conditions(recorded, again)
    if why is None:
        return Reproduction("different", f"{unequal}, although {again.processor} with {again.threads} threads computed both")
    figures = f"{metric} {before:.4f} was recorded, {after:.4f} was found"
    if abs(after - before) <= tolerance:
        return Reproduction("within_tolerance", f"{unequal} ({why}); {figures}: within {tolerance:g} (training.tolerance)")
    return Reproduction("different", f"{unequal} ({why}); {figures}: more than {tolerance:g} apart (training.tolerance)")


def _other_conditions(recorded: Sequence[Conditions], again: Conditions) -> str | None:
    """Say why bits may differ; None where they may not."""
    if not recorded:
        return "under what the recorded training computed was not noted"
    if len(recorded) > 1:
        return f"the recorded training's own conditions changed underway: {_changes(recorded[0], recorded[-1])}"
    (before,) = recorded
    if before != again:
        return _changes(before, again)
    return None if again.accelerator == "cpu" else f"sums on {again.accelerator} have no fixed order"


def _changes(before: Conditions, after: Conditions) -> str:
    named = vars(after).items()
    changed = [f"{name} {getattr(before, name)} first, {value} then" for name, value in named if getattr(before, name) != value]
    return ", ".join(changed) or "there and back"
