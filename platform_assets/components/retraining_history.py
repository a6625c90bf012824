"""What the audit log says of a model's retrainings: who asked in words, what was asked for, what became of it. Nothing is decided here."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from platform_assets.stages.retraining.policy import PastRetraining, Wanted
from platform_assets.stages.retraining.start import Outcome

if TYPE_CHECKING:
    from platform_assets.specs.records import RetrainingVerdict
    from resources.parts import Parts

WANTED, ASKED, ANSWERED = "retraining_wanted", "retraining", "retraining_outcome"


def past_retrainings(parts: Parts, model: str) -> list[PastRetraining]:
    """Return every retraining that was asked for, oldest first, with what came of it, from the audit log."""
    entries = parts.audit.entries(subject=f"model/{model}")
    outcomes = {entry["detail"]["verdict_id"]: entry["detail"] for entry in entries if entry["action"] == ANSWERED}
    past = []
    for entry in entries:
        if entry["action"] != ASKED:
            continue
        asked, answer = entry["detail"], outcomes.get(entry["detail"]["verdict_id"], {})
        outcome: Outcome = answer.get("outcome", "pending")
        past.append(
            PastRetraining(
                asked["verdict_id"],
                asked["trigger"],
                datetime.fromisoformat(asked["at"]),
                outcome,
                datetime.fromisoformat(answer["at"]) if answer else None,
                gain=answer.get("gain"),
                age=asked.get("age", 0),
                since=asked.get("since", ""),
                base=asked.get("base"),
            )
        )
    return past


def wanted_retrainings(parts: Parts, model: str) -> tuple[Wanted, ...]:
    """Return every retraining that somebody asked for in words, answered or not, oldest first."""
    entries = parts.audit.entries(subject=f"model/{model}")
    return tuple(Wanted(entry["detail"]["trigger"], entry["detail"]["why"], entry["seq"]) for entry in entries if entry["action"] == WANTED)


def open_retraining(parts: Parts, model: str, verdict: RetrainingVerdict, *, age: int) -> None:
    """Write that a retraining is asked for; `age`: windows of the model that it is to replace."""
    detail = {
        "verdict_id": verdict.verdict_id, "trigger": verdict.trigger, "at": verdict.decided_at, "why": verdict.sentence,
        "since": verdict.since, "age": age, "how": verdict.how, "how_why": verdict.how_why, "learns_from": verdict.learns_from,
        "base": verdict.base,
    }  # fmt: skip
    parts.audit.append(ASKED, subject=f"model/{model}", actor="policy", detail=detail)


def close_retraining(parts: Parts, model: str, *, outcome: str, why: str, at: datetime, gain: float | None = None) -> None:
    """Write what became of the retraining that is under way, and the share of the loss it took; nothing where none is."""
    for past in past_retrainings(parts, model):
        if past.outcome == "pending":
            detail = {"verdict_id": past.verdict_id, "outcome": outcome, "why": why, "at": at.isoformat(timespec="seconds"), "gain": gain}
            parts.audit.append(ANSWERED, subject=f"model/{model}", actor="policy", detail=detail)
