"""What a run is expected to cost, from what the same work cost before."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from platform_assets import keys
from platform_assets.specs.spending import Asked, Entry

LAST_RUNS = 5
TRAININGS = ("model/trained", f"model/{keys.SWEEP}")  # a trial of a search is a training like any other


@dataclass(frozen=True)
class Need:
    """One step that a run wants to take, who pays for it, and what it would hold meanwhile."""

    tenant: str
    model: str
    stage: str
    asked: Asked


@dataclass(frozen=True)
class Bill:
    """What a run is expected to cost one model, in AED; `basis` says in words what that rests on.

    `training_aed`: the training's part, None where nothing is known of it. `free`: no step of it has a price.
    """

    tenant: str
    model: str
    aed: float
    basis: str
    free: bool
    training_aed: float | None = None
    max_cost_aed: float | None = None


def expect_step(need: Need, past: Iterable[Entry]) -> float | None:
    """Return the expected cost of one step in AED; None where nothing like it was ever done to its end.

    The median of the last runs: their time on this profile at today's price, or, never run on this profile, what they cost elsewhere.
    """
    alike = [entry for entry in past if (entry.model, entry.stage) == (need.model, need.stage)][:LAST_RUNS]
    here = [need.asked.price(entry.wall_seconds) for entry in alike if entry.asked.profile == need.asked.profile]
    prices = here or [entry.price_aed for entry in alike]
    return median(prices) if prices else None


def write_bill(needs: Sequence[Need], past: Sequence[Entry], *, max_cost_aed: float | None) -> Bill:
    """Add up what one model's steps are expected to cost; a training that was never done costs what was declared as its most, or nil."""
    if len({(need.tenant, need.model) for need in needs}) != 1:
        raise ValueError("a bill is one model's: split the needs by tenant and model")
    expected = [(need, expect_step(need, past)) for need in needs]
    trainings = [(need, aed) for need, aed in expected if need.stage in TRAININGS]
    training = max((aed for _, aed in trainings if aed is not None), default=None)
    untrained = training is None and any(need.asked.price_aed_per_hour for need, _ in trainings)
    free = not any(need.asked.price_aed_per_hour for need in needs)
    known = [aed for _, aed in expected if aed is not None]
    aed = sum(known)
    if free:
        basis = "its profile has no price"
    elif untrained and max_cost_aed is not None:
        aed += max_cost_aed
        basis = f"it was never trained, and may cost {max_cost_aed:g} at most"
    elif not known:
        basis = "there is no earlier run to judge by"
    else:
        basis = f"the median of its last {LAST_RUNS} runs" if not untrained else "it was never trained, the rest is its median"
    return Bill(needs[0].tenant, needs[0].model, aed, basis, free, training, max_cost_aed)
