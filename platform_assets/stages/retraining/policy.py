"""The retraining policy: a pure function of evidence, history and time. It starts nothing and remembers nothing.

Triggers say that something asks; the pay-off says whether it is worth it. Edge-triggered: one breach asks once, however long it lasts,
until it ended or a retraining finished after it. Every ask also respects the cool-down (twice as long after a retraining that did not
help) and the most retrainings within a span; nothing is asked while a retraining or a canary is under way, nor on a broken feed.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, TypeVar

from platform_assets.measures import HIGHER_IS_BETTER
from platform_assets.specs.estimate import WindowEstimate
from platform_assets.specs.feed import FeedReport
from platform_assets.specs.records import RetrainingVerdict, WindowPerformance, WindowReport
from platform_assets.stages.retraining.payoff import Attempt, Choice, Labelled, Situation, choose
from platform_assets.stages.retraining.start import USELESS, Base, Outcome, Try, choose_start

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from platform_assets.specs.model import RetrainingSpec

T = TypeVar("T")
WORDS = ("person", "erasure", "event")  # triggers that somebody says, the most urgent first
_BINDING = ("person", "erasure")  # not held up by cool-down, limit or pay-off


@dataclass(frozen=True)
class Wanted:
    """A retraining that was asked for in words: by a person, after an erasure, because of an event outside of the data.

    `number` tells it from every other one.
    """

    trigger: str
    why: str
    number: int


@dataclass(frozen=True)
class Evidence:
    """What is known at the time of deciding.

    Windows in order, their performance and what it was estimated at without labels, rows since the last training, time since the newest
    row that was learnt from, what was asked for in words, the feed, what is `under_way` (a sentence, "" for nothing), and what a retraining
    costs: CPU seconds and AED by the ledger, None where none was ever made. A retraining could begin with `base` and `learns_from` rows.
    """

    drift: tuple[WindowReport, ...] = ()
    performance: tuple[WindowPerformance, ...] = ()
    rows_since_training: int = 0
    age: timedelta | None = None
    wanted: tuple[Wanted, ...] = ()
    feed: FeedReport = field(default_factory=FeedReport)
    under_way: str = ""
    cpu_seconds: float | None = None
    price_aed: float | None = None
    estimates: tuple[WindowEstimate, ...] = ()
    base: Base = field(default_factory=Base)
    learns_from: str = ""


@dataclass(frozen=True)
class PastRetraining:
    """One retraining that was asked for, by whatever trigger.

    `gain`: share of the loss it took; `age`: windows of the model before it; `since`: where the breach began that asked for it; `base`: the
    training whose weights it was to begin with.
    """

    verdict_id: str
    trigger: str
    decided_at: datetime
    outcome: Outcome = "pending"
    finished_at: datetime | None = None
    gain: float | None = None
    age: int = 0
    since: str = ""
    base: str | None = None


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
    epoch = max(finished, key=lambda past: past.finished_at or past.decided_at).verdict_id if finished else "first"
    fault = evidence.feed.now
    if fault is not None:
        broken = Breach("feed", f"window {fault.window} of {fault.first_event}", fault.sentence, {"window": float(fault.window)})
        told = _verdict(asked=False, breach=broken, epoch=epoch, now=now, because="nothing is learnt from data at fault")
        return replace(told, blocked="data_at_fault")
    healthy = _without_faults(evidence)
    said = [_said(wanted) for wanted in sorted(evidence.wanted, key=lambda one: (WORDS.index(one.trigger), one.number))]
    done = {(past.trigger, past.since) for past in counted}
    open_words = [breach for breach in said if (breach.trigger, breach.since) not in done]
    breaches = [*open_words, *_breaches(healthy, seen_until, spec)]
    triggers = tuple(dict.fromkeys(breach.trigger for breach in breaches))
    if not breaches:
        return _verdict(asked=False, breach=Breach("none", "", "nothing asks for a retraining", {}), epoch=epoch, now=now)
    answered = {past.verdict_id for past in history}
    fresh = [breach for breach in breaches if _name(breach, epoch) not in answered]
    if not fresh:
        told = _verdict(asked=False, breach=breaches[0], epoch=epoch, now=now, because="it was answered already")
        return replace(told, triggers=triggers)
    verdicts = [_judge(breach, healthy, history=counted, seen_until=seen_until, epoch=epoch, now=now, spec=spec) for breach in fresh]
    return replace(next((verdict for verdict in verdicts if verdict.asked), verdicts[0]), triggers=triggers)


def cool_down_ends(history: Sequence[PastRetraining], *, spec: RetrainingSpec) -> datetime | None:
    """Return when the next ask is allowed again; None where there was none yet."""
    ends = [past.decided_at + spec.cool_down * (2 if past.outcome == "did_not_help" else 1) for past in history]
    return max(ends, default=None)


def count_useless(history: Sequence[PastRetraining]) -> int:
    """Return how many of the newest finished retrainings in a row won nothing."""
    row = 0
    for past in reversed([past for past in history if past.outcome not in ("pending", "cut_off")]):
        if past.outcome not in USELESS:
            break
        row += 1
    return row


def _without_faults(evidence: Evidence) -> Evidence:
    faulty = {fault.window for fault in evidence.feed.faults}
    return replace(
        evidence,
        drift=tuple(window for window in evidence.drift if window.window not in faulty),
        performance=tuple(window for window in evidence.performance if window.window not in faulty),
        estimates=tuple(window for window in evidence.estimates if window.window not in faulty),
    )


def _judge(
    breach: Breach, evidence: Evidence, *, history: Sequence[PastRetraining], seen_until: datetime | None, epoch: str, now: datetime,
    spec: RetrainingSpec,
) -> RetrainingVerdict:  # fmt: skip
    """Ask for what a breach asks for, or say what speaks against it."""
    choice = None if breach.trigger in _BINDING else weigh(breach.trigger, evidence, history=history, seen_until=seen_until, spec=spec)
    useless = count_useless(history)
    stuck = breach.trigger != "person" and useless >= spec.ask_a_person_after
    refusal = f"{evidence.under_way} is under way" if evidence.under_way else _wait(breach, spec)
    if refusal is None and stuck:
        refusal = f"{useless} retrainings in a row won nothing, a person is asked (falaj drift ask)"
    if refusal is None and breach.trigger not in _BINDING:
        refusal = _refuse(history, now, spec)
    if refusal is None and choice is not None and choice.how != "retrain":
        refusal = choice.sentence
    verdict = _verdict(asked=refusal is None, breach=breach, epoch=epoch, now=now, because=refusal)
    if verdict.asked:
        tries = [Try(past.base is not None, past.outcome, past.gain) for past in history if past.outcome != "pending"]
        newest = next((one for one in reversed(evidence.performance) if one.settled and _is_new(one.last_event, seen_until)), None)
        start = choose_start(breach.trigger, newest, base=evidence.base, tries=tries, spec=spec)
        verdict = replace(verdict, how=start.how, how_why=start.why, base=start.base, learns_from=evidence.learns_from)
    return replace(
        verdict,
        blocked="needs_a_person" if stuck and refusal is not None else "",
        expected_gain=choice.expected_gain if choice else None,
        expected_cost_aed=evidence.price_aed if choice else None,
        weighed=choice.sentence if choice else "",
    )


def weigh(
    trigger: str, evidence: Evidence, *, history: Sequence[PastRetraining], seen_until: datetime | None, spec: RetrainingSpec
) -> Choice | None:
    """Hold what a retraining is likely to win against what it costs; None where no training was ever made and nothing is known."""
    if evidence.cpu_seconds is None:
        return None
    since = [window for window in evidence.drift if _is_new(window.last_event, seen_until)]
    labelled = tuple(
        Labelled(window.window, 1 - window.value if HIGHER_IS_BETTER[window.metric] else window.value, window.error)
        for window in evidence.performance
        if window.settled and window.value is not None and window.error is not None and _is_new(window.last_event, seen_until)
    )
    ledger = [Attempt("retrain", 0, past.age, evidence.cpu_seconds, past.gain, past.trigger) for past in history]
    situation = Situation(
        window=evidence.drift[-1].window if evidence.drift else 0,
        elapsed=len(evidence.drift),
        age=len(since),
        labelled=labelled,
        unit=evidence.cpu_seconds,
        spent=evidence.cpu_seconds * len(history),
        trigger=trigger,
    )
    return choose(situation, ledger=ledger, spec=spec.payoff.model_copy(update={"refresh_keeps": None}))


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
    if spec.on_estimate and (fall := _estimated_fall(evidence, seen_until)):
        figures = {"window": float(fall[0].window), "windows": float(len(fall)), fall[-1].metric: fall[-1].value}
        figures["labelled"] = float(_labelled_since(fall[0].window, evidence))
        yield Breach("estimate", f"window {fall[0].window} until {fall[0].last_event}", fall[-1].sentence, figures)
    if spec.on_new_rows is not None and evidence.rows_since_training >= spec.on_new_rows:
        rows = evidence.rows_since_training
        sentence = f"{rows} rows came in since the last training, {spec.on_new_rows} ask for one"
        yield Breach("new_rows", "", sentence, {"rows_since_training": float(rows)})
    if spec.on_age is not None and evidence.age is not None and evidence.age >= spec.on_age:
        sentence = f"the newest row that it learnt from is {_days(evidence.age)} old, {_days(spec.on_age)} ask for a retraining"
        yield Breach("age", "", sentence, {"age_days": evidence.age / timedelta(days=1)})


def _estimated_fall(evidence: Evidence, seen_until: datetime | None) -> list[WindowEstimate]:
    """Return the run of estimated drops at the end; what labels have settled since is no estimate any more."""
    settled = {window.window for window in evidence.performance if window.settled}
    return _tail([(one.dropped and one.window not in settled, one) for one in evidence.estimates if _is_new(one.last_event, seen_until)])


def _said(wanted: Wanted) -> Breach:
    return Breach(wanted.trigger, str(wanted.number), wanted.why, {})


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
        since=breach.since,
    )


def _days(span: timedelta) -> str:
    return f"{span / timedelta(days=1):.4g} days"
