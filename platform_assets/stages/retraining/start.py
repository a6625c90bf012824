"""What a retraining begins with: fresh weights, or the champion's. A pure function of evidence and of what became of earlier ones.

A champion that mostly still holds is a good start: half the epochs reach what all of them reach from scratch. One whose world has turned
around is none: it must unlearn first (decision 84 has the figures).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from platform_assets.measures import HIGHER_IS_BETTER

if TYPE_CHECKING:
    from collections.abc import Sequence

    from platform_assets.specs.model import RetrainingSpec, WarmStartSpec
    from platform_assets.specs.records import WindowPerformance

Outcome = Literal["pending", "helped", "did_not_help", "undecided", "failed", "cut_off"]
USELESS = ("did_not_help", "failed")
_FEWEST = 2  # known gains of either kind before they are held against each other
_LEAST_PROMISE = 1e-3  # of a loss: none is divided by


@dataclass(frozen=True)
class Base:
    """The live release's training, by digest; `refused` says why nothing can begin with it, "" where something can."""

    training: str = ""
    refused: str = "there is no champion"


@dataclass(frozen=True)
class Try:
    """An earlier retraining: whether it began with its champion's weights, what became of it, the share of the loss that it took."""

    warm: bool
    outcome: Outcome
    gain: float | None


@dataclass(frozen=True)
class Start:
    """What a retraining begins with and why; `base` is None from scratch."""

    how: Literal["from_scratch", "warm_start"]
    why: str
    base: str | None = None


def choose_start(trigger: str, newest: WindowPerformance | None, *, base: Base, tries: Sequence[Try], spec: RetrainingSpec) -> Start:
    """Choose what a retraining begins with.

    `newest`: the newest settled window of the live model; `tries`: what came of earlier retrainings, oldest first.
    """
    against = _speaks_against(trigger, newest, base=base, tries=tries, spec=spec)
    if against is not None:
        return Start("from_scratch", against)
    assert spec.warm_start is not None
    held = f"the champion's loss is {_grown(newest):.2f} times the promised one" if newest else "nothing says that it has broken"
    return Start("warm_start", f"{held}, so its weights are a start: {spec.warm_start.epochs:.0%} of the epochs", base.training)


def _speaks_against(
    trigger: str, newest: WindowPerformance | None, *, base: Base, tries: Sequence[Try], spec: RetrainingSpec
) -> str | None:  # fmt: skip
    warm = spec.warm_start
    if warm is None:
        return "warm starts are switched off (retraining.warm_start)"
    if trigger == "erasure":
        return "what was erased must not live on in weights"
    return (
        base.refused or _tried_too_often([one for one in tries if one.outcome != "cut_off"], spec, warm) or _broken(trigger, newest, warm)
    )


def _tried_too_often(tries: Sequence[Try], spec: RetrainingSpec, warm: WarmStartSpec) -> str | None:
    """Hold what warm starts won against what fresh ones won; what they save in epochs is worth what a whole retraining must win."""
    if tries and tries[-1].warm and tries[-1].outcome in USELESS:
        return "the last one began with its champion's weights and won nothing"
    row = next((place for place, one in enumerate(reversed(tries)) if not one.warm), len(tries))
    if row >= warm.at_most:
        return f"{row} in a row began with their champions' weights, {warm.at_most} may (retraining.warm_start.at_most)"
    ours, theirs = ([one.gain for one in tries if one.warm is kind and one.gain is not None] for kind in (True, False))
    if min(len(ours), len(theirs)) < _FEWEST:
        return None
    won, missed = sum(ours) / len(ours), sum(theirs) / len(theirs)
    saved = (1 - warm.epochs) * spec.payoff.least_gain
    return f"warm starts took {won:.1%} of the loss on the mean, fresh ones {missed:.1%}" if won + saved < missed else None


def _broken(trigger: str, newest: WindowPerformance | None, warm: WarmStartSpec) -> str | None:
    if newest is None:
        return "no label says yet how much of the champion holds" if trigger in ("drift", "estimate") else None
    if _grown(newest) < warm.most_loss:
        return None
    return f"the champion's loss is {_grown(newest):.2f} times the promised one, from {warm.most_loss:g} on its weights are no help"


def _grown(newest: WindowPerformance) -> float:
    value, promised = newest.value or 0.0, newest.promised
    lost, expected = (1 - value, 1 - promised) if HIGHER_IS_BETTER[newest.metric] else (value, promised)
    return lost / max(expected, _LEAST_PROMISE)
