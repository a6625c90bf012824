"""Steps that answer the evidence: retraining_verdict, and retraining_outcome, what became of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import dagster as dg

from platform_assets import keys
from platform_assets.components.retraining_evidence import decide_now, gather_evidence
from platform_assets.components.retraining_history import ANSWERED, open_retraining, past_retrainings
from platform_assets.components.step import Outcome, Step, fingerprint
from platform_assets.specs.dataset import DatasetSpec
from platform_assets.specs.model import ModelSpec
from platform_assets.specs.outcomes import OutcomeWord, RetrainingOutcomeRecord
from platform_assets.specs.records import DriftPointer, RetrainingVerdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from platform_assets.stages.retraining.policy import Evidence, PastRetraining
    from resources.parts import Parts


def decide_retraining(model: ModelSpec, dataset: DatasetSpec, step: Step) -> Outcome:
    """Ask for a retraining or not, by declaration, evidence, ledger and the data's clock; tell people what they should know."""
    parts = step.parts
    step.read(keys.model_key(model.name, "drift_report"), DriftPointer)
    evidence = gather_evidence(model, dataset, parts, step.context.instance)
    verdict = decide_now(model, dataset, parts, evidence)
    if verdict.asked:
        open_retraining(parts, model.name, verdict, age=windows_since(evidence, past_retrainings(parts, model.name)))
    _tell(model, parts, verdict)
    return Outcome(verdict, fingerprint(verdict), describe_verdict(verdict))


def describe_verdict(verdict: RetrainingVerdict) -> dict[str, Any]:
    """Return what a person reads of a verdict: what asks, what was expected to be won and to be paid, and what spoke against it."""
    weighed: dict[str, Any] = {
        "expected_gain": verdict.expected_gain, "expected_cost_aed": verdict.expected_cost_aed, "weighed": verdict.weighed or None
    }  # fmt: skip
    return {
        "asked": verdict.asked, "trigger": verdict.trigger, "verdict": verdict.sentence, "decided_at": verdict.decided_at,
        "triggers": ", ".join(verdict.triggers) or "none", "evidence": dg.MetadataValue.json(verdict.evidence),
        **{name: value for name, value in weighed.items() if value is not None},
        **({"blocked": verdict.blocked} if verdict.blocked else {}),
        **({"how": verdict.how.replace("_", " "), "how_why": verdict.how_why, "learns_from": verdict.learns_from} if verdict.how else {}),
    }  # fmt: skip


def windows_since(evidence: Evidence, history: Sequence[PastRetraining]) -> int:
    """Count windows that the live model has answered since the newest retraining ended."""
    ended = max((past.finished_at for past in history if past.finished_at and past.outcome != "cut_off"), default=None)
    return sum(ended is None or window.last_event > str(ended) for window in evidence.drift)


def _tell(model: ModelSpec, parts: Parts, verdict: RetrainingVerdict) -> None:
    if verdict.asked:
        title, severity = "retraining asked", "warning"
    elif verdict.blocked:
        title, severity = {"data_at_fault": "data at fault", "needs_a_person": "needs a person"}[verdict.blocked], "error"
    else:
        return
    key = f"{model.name}/{verdict.blocked or 'asked'}/{verdict.verdict_id}"
    parts.notifier.notify(f"{model.name}: {title}", verdict.sentence, severity=severity, key=key)


def record_outcome(model: ModelSpec, dataset: DatasetSpec, step: Step) -> Outcome:
    """State what became of the newest retraining: helped, did not help, data at fault, needs a person, or none yet."""
    from platform_assets.stages.retraining.policy import cool_down_ends, count_useless

    del dataset
    parts = step.parts
    history = past_retrainings(parts, model.name)
    verdict = step.find(keys.model_key(model.name, "retraining_verdict"), RetrainingVerdict)
    answers = [entry["detail"] for entry in parts.audit.entries(subject=f"model/{model.name}") if entry["action"] == ANSWERED]
    ends = cool_down_ends([past for past in history if past.outcome != "cut_off"], spec=model.retraining)
    useless = count_useless(history)
    newest = history[-1] if history else None
    # a verdict that a later retraining has answered says nothing of now
    word: OutcomeWord
    if verdict is not None and verdict.blocked and (newest is None or verdict.decided_at >= newest.decided_at.isoformat()):
        word, why, at = verdict.blocked, verdict.sentence, verdict.decided_at
    elif newest is None:
        word, why, at = "none", "no retraining was asked for yet", ""
    else:
        why = next((one["why"] for one in reversed(answers) if one["verdict_id"] == newest.verdict_id), "it is under way")
        word, at = newest.outcome, (newest.finished_at or newest.decided_at).isoformat()
    record = RetrainingOutcomeRecord(
        outcome=word, sentence=why, verdict_id=newest.verdict_id if newest else "", trigger=newest.trigger if newest else "", at=at,
        gain=newest.gain if newest else None, retrainings=len(history), useless=useless, quiet_until=ends.isoformat() if ends else "",
    )  # fmt: skip
    metadata = {
        "outcome": record.outcome, "why": record.sentence, "retrainings": record.retrainings, "useless_in_a_row": record.useless,
        "quiet_until": record.quiet_until or "now", "past": dg.MetadataValue.md(_table(history)),
        **({"share_of_the_loss_won": record.gain} if record.gain is not None else {}),
    }  # fmt: skip
    return Outcome(record, fingerprint(record), metadata)


def _table(history: Sequence[PastRetraining]) -> str:
    rows = "\n".join(
        f"| {past.decided_at:%Y-%m-%d %H:%M} | {past.trigger} | {past.outcome.replace('_', ' ')} "
        f"| {'' if past.gain is None else f'{past.gain:+.1%}'} | {past.age} "
        f"| {f'weights of {past.base[:12]}' if past.base else 'fresh weights'} |"
        for past in history
    )
    return f"| asked | trigger | outcome | share of the loss won | windows old | began with |\n|---|---|---|---|---|---|\n{rows}"
