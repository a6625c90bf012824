"""The retraining policy: a pure function of evidence, history and time. It starts nothing and remembers nothing.

Edge-triggered: one breach asks once, however long it lasts, until it ended or a retraining finished after it. Every ask also
respects the cool-down (twice as long after a retraining that did not help) and the most retrainings within a span.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Literal, TypeVar

from platform_assets.specs.records import RetrainingVerdict, WindowPerformance, WindowReport

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from platform_assets.specs.model import RetrainingSpec

T = TypeVar("T")
Outcome = Literal["pending", "helped", "did_not_help", "undecided", "failed", "cut_off"]


@dataclass(frozen=True)
class Evidence:
    """What is known at the time of deciding: windows in order, their performance in order, rows since the last training."""

    drift: tuple[WindowReport, ...] = ()
    performance: tuple[WindowPerformance, ...] = ()
    rows_since_training: int = 0


@dataclass(frozen=True)
class PastRetraining:
    """One retraining that was asked for, by whatever trigger (schedules and people included)."""

    verdict_id: str
    trigger: str
    decided_at: datetime
    outcome: Outcome = "pending"
    finished_at: datetime | None = None


@dataclass(frozen=True)
class Breach:
    """One reason to retrain; `since` names where it began and stays the same for as long as it lasts."""

    trigger: str
    since: str
    sentence: str
    figures: dict[str, float]


def decide(evidence: Evidence, *, history: Sequence[PastRetraining], now: datetime, spec: RetrainingSpec) -> RetrainingVerdict:
    """Decide on one retraining. The same evidence and history give the same `verdict_id`, so asking again after a restart is one ask."""
    finished = [past for past in history if past.outcome != "pending"]
    counted = [past for past in history if past.outcome != "cut_off"]  # killed from outside: it answered nothing and is asked for anew
    seen_until = max((past.finished_at or past.decided_at for past in finished if past in counted), default=None)
    breaches = list(_breaches(evidence, seen_until, spec))
    epoch = max(finished, key=lambda past: past.finished_at or past.decided_at).verdict_id if finished else "first"
    if not breaches:
        return _verdict(asked=False, breach=Breach("none", "", "nothing asks for a retraining", {}), epoch=epoch, now=now)
    answered = {past.verdict_id for past in history}
    fresh = [breach for breach in breaches if _name(breach, epoch) not in answered]
    if not fresh:
        return _verdict(asked=False, breach=breaches[0], epoch=epoch, now=now, because="it was answered already")
    refusal = _wait(fresh[0], spec) or _refuse(counted, now, spec)
    return _verdict(asked=refusal is None, breach=fresh[0], epoch=epoch, now=now, because=refusal)


def cool_down_ends(history: Sequence[PastRetraining], *, spec: RetrainingSpec) -> datetime | None:
    """Return when the next ask is allowed again; None where there was none yet."""
    ends = [past.decided_at + spec.cool_down * (2 if past.outcome == "did_not_help" else 1) for past in history]
    return max(ends, default=None)


def _wait(breach: Breach, spec: RetrainingSpec) -> str | None:
    """Say why a breach cannot be learnt from yet; None where it can."""
    labelled = breach.figures.get("labelled")
    if labelled is None or labelled >= spec.wait_for_labels:
        return None
    return f"{labelled:.0f} labels have come since it began, {spec.wait_for_labels} are waited for (retraining.wait_for_labels)"


def _labelled_since(window: int, evidence: Evidence) -> int:
    return sum(performance.labelled for performance in evidence.performance if performance.window >= window)


def _refuse(history: Sequence[PastRetraining], now: datetime, spec: RetrainingSpec) -> str | None:
    ends = cool_down_ends(history, spec=spec)
    if ends is not None and now < ends:
        return f"the cool-down lasts until {ends:%Y-%m-%d %H:%M}"
    recent = sum(past.decided_at > now - spec.within for past in history)
    if recent >= spec.at_most:
        return f"{recent} were asked for within {_days(spec.within)}, {spec.at_most} are allowed (retraining.at_most)"
    return None


def _breaches(evidence: Evidence, seen_until: datetime | None, spec: RetrainingSpec) -> Iterator[Breach]:
    """Breaches under way, of evidence that is newer than the last finished retraining."""
    recent = [w for w in evidence.drift if _is_new(w.last_event, seen_until)]
    if spec.on_drift and (drift := _tail([(w.drifted, w) for w in recent])):
        labelled = _labelled_since(next(w.window for w in recent if w.drifted), evidence)
        figures = {
            "window": float(drift[0].window),
            "windows": float(len(drift)),
            "row": float(drift[0].first_row),
            "labelled": float(labelled),
        }
        yield Breach("drift", f"window {drift[0].window} of {drift[0].first_event}", drift[-1].evidence, figures)
    settled = [(w.dropped, w) for w in evidence.performance if w.settled and _is_new(w.last_event, seen_until)]
    if spec.on_performance and (drop := _tail(settled)):
        figures = {"window": float(drop[0].window), "windows": float(len(drop)), drop[-1].metric: drop[-1].value or 0.0}
        figures["labelled"] = float(_labelled_since(min([drop[0].window, *(w.window for w in recent if w.drifted)]), evidence))
        yield Breach("performance", f"window {drop[0].window} until {drop[0].last_event}", drop[-1].sentence, figures)
    if spec.on_new_rows is not None and evidence.rows_since_training >= spec.on_new_rows:
        rows = evidence.rows_since_training
        sentence = f"{rows} rows came in since the last training, {spec.on_new_rows} ask for one"
        yield Breach("new_rows", "", sentence, {"rows_since_training": float(rows)})


def _tail(flagged: Sequence[tuple[bool, T]]) -> list[T]:
    """Return the unbroken run of flagged items at the end."""
    run: list[T] = []
    for flag, item in flagged:
        run = [*run, item] if flag else []
    return run


def _is_new(last_event: str, seen_until: datetime | None) -> bool:
    return seen_until is None or datetime.fromisoformat(last_event) > seen_until


def _name(breach: Breach, epoch: str) -> str:
    canonical = json.dumps([breach.trigger, breach.since, epoch])
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def _verdict(*, asked: bool, breach: Breach, epoch: str, now: datetime, because: str | None = None) -> RetrainingVerdict:
    sentence = f"{breach.sentence}; not asked: {because}" if because else breach.sentence
    return RetrainingVerdict(
        asked=asked,
        trigger=breach.trigger,
        sentence=sentence,
        verdict_id=_name(breach, epoch),
        decided_at=now.isoformat(timespec="seconds"),
        evidence=breach.figures,
    )


def _days(span: timedelta) -> str:
    return f"{span / timedelta(days=1):g} days"
