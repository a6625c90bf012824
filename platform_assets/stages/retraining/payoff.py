"""What retraining is likely to win, against what it costs: a pure function of evidence, ledger and clock.

Three ways to go on: keep the champion; refresh it, a warm start on the newest window that costs a fraction; retrain it from scratch.
What each wins is learnt from this model's own past, as the share of the loss that was taken away on the window that came next. Evidence
of a window whose feed was broken must not be given: nothing may be learnt from it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from platform_assets.specs.model import PayoffSpec

How = Literal["keep", "refresh", "retrain"]
_LEDGER = 8  # the newest attempts of a kind that the expectation rests on
_PRIOR_RATE = 0.01  # share of the loss that ageing one window costs, before anything was seen
_PRIOR_WINDOWS = 6.0  # weight of that belief, in windows of age
_PRIOR_REFRESH = 0.02
_PRIOR_REFRESHES = 4.0
_PRIOR_TRIGGER = 0.05  # share of the loss that what a trigger asks for takes away: enough for a first try
_PRIOR_TRIGGERS = 2.0
_ROUNDING = 1e-9
_MOST = 0.5  # no attempt says more than this: a window may be odd
_SURE = 3.0  # standard errors from which a risen loss counts
_LONGEST_PAUSE = 4


@dataclass(frozen=True)
class Attempt:
    """A refresh or a retraining that was made: its CPU seconds and, once the next window is labelled, the share of the loss it took."""

    how: How
    window: int
    age: int  # windows since the champion before it was trained from scratch
    cpu_seconds: float
    gain: float | None = None
    trigger: str = ""  # what asked for it; "" where nothing but the pay-off did


@dataclass(frozen=True)
class Labelled:
    """The champion's loss on a window whose labels are known: mean and standard error over its rows."""

    window: int
    loss: float
    error: float


@dataclass(frozen=True)
class Situation:
    """What is known when window `window` has ended. `unit`: CPU seconds of a training from scratch; `spent`: by the policy so far."""

    window: int
    elapsed: int  # windows decided on before this one
    age: int  # windows since the champion was trained from scratch
    labelled: tuple[Labelled, ...]  # since then, oldest first
    unit: float
    spent: float
    trigger: str = ""  # what asks for it, beyond age and a risen loss


@dataclass(frozen=True)
class Choice:
    """What to do, what it is expected to win (share of the loss) and to cost (CPU seconds), and why."""

    how: How
    expected_gain: float
    expected_cost: float
    sentence: str


def choose(now: Situation, *, ledger: Sequence[Attempt], spec: PayoffSpec) -> Choice:
    """Weigh retraining, refreshing and keeping. The same evidence and ledger give the same choice."""
    gain, why = expect_gain(now, ledger)
    allowed = spec.budget * now.unit * (now.elapsed + 1 + spec.credit_windows)
    if gain < spec.least_gain:
        because = f"a retraining is expected to take {gain:.1%} of the loss, {spec.least_gain:.1%} would pay for it"
    elif now.spent + now.unit > allowed * (1 + _ROUNDING):
        because = f"a retraining is expected to take {gain:.1%} of the loss, but {now.spent:.2f} of {allowed:.2f} CPU s are spent"
    else:
        return Choice("retrain", gain, now.unit, f"a retraining is expected to take {gain:.1%} of the loss ({why})")
    refreshes = [past for past in ledger if past.how == "refresh"]
    cost = float(np.mean([past.cpu_seconds for past in refreshes[-_LEDGER:]])) if refreshes else 0.0
    expected = _expect_refresh(refreshes)
    if spec.refresh_keeps is None or now.spent + cost > allowed:
        return Choice("keep", 0.0, 0.0, because)
    if expected > 0 or now.window - refreshes[-1].window >= _pause(refreshes):
        return Choice("refresh", expected, cost, f"{because}; a refresh is expected to take {expected:.1%}")
    return Choice("keep", 0.0, 0.0, f"{because}; refreshing did not help of late and is tried again later")


def expect_gain(now: Situation, ledger: Sequence[Attempt]) -> tuple[float, str]:
    """Return the share of the loss that a retraining is expected to take, and why.

    The largest of what ageing cost in the past, a rise that is seen now, and what retrainings for the same reason won before.
    """
    known = [past for past in ledger if past.how == "retrain" and past.gain is not None][-_LEDGER:]
    won = sum(float(np.clip(past.gain or 0.0, -_MOST, _MOST)) for past in known)
    rate = max(0.0, (_PRIOR_RATE * _PRIOR_WINDOWS + won) / (_PRIOR_WINDOWS + sum(past.age for past in known)))
    aged = min(_MOST, rate * now.age)
    risen = _risen(now.labelled)
    asked, before = _expect_trigger(now.trigger, ledger)
    if asked > max(aged, risen):
        return asked, f"for this reason {before} were made before" if before else "for this reason none was made yet"
    if risen > aged:
        return risen, f"the loss has risen by {risen:.0%} since it was trained"
    return aged, f"{now.age} windows old, a window of age has cost {rate:.2%}"


def _risen(labelled: Sequence[Labelled]) -> float:
    """Return which share of the newest loss is above what it was at first after training; 0 where that may be luck."""
    if len(labelled) < 2:  # noqa: PLR2004
        return 0.0
    first, last = labelled[0], labelled[-1]
    error = float(np.hypot(first.error, last.error))
    rise = last.loss - first.loss
    return min(_MOST, rise / last.loss) if rise > _SURE * error and last.loss > 0 else 0.0


def _expect_trigger(trigger: str, ledger: Sequence[Attempt]) -> tuple[float, int]:
    """Return what retrainings that this trigger asked for won on the mean, believed in more the more there are; 0 where none asks."""
    if not trigger:
        return 0.0, 0
    gains = [float(np.clip(past.gain, -_MOST, _MOST)) for past in ledger if past.trigger == trigger and past.gain is not None][-_LEDGER:]
    return (_PRIOR_TRIGGER * _PRIOR_TRIGGERS + sum(gains)) / (_PRIOR_TRIGGERS + len(gains)), len(gains)


def _expect_refresh(refreshes: Sequence[Attempt]) -> float:
    gains = [float(np.clip(past.gain, -_MOST, _MOST)) for past in refreshes if past.gain is not None][-_LEDGER:]
    return (_PRIOR_REFRESH * _PRIOR_REFRESHES + sum(gains)) / (_PRIOR_REFRESHES + len(gains))


def _pause(refreshes: Sequence[Attempt]) -> int:
    """Windows to wait after refreshes that did not help: twice as long after each."""
    useless = 0
    for past in reversed(refreshes):
        if past.gain is None or past.gain > 0:
            break
        useless += 1
    return int(min(_LONGEST_PAUSE, 2**useless))
