"""Events in and out: what arrives launches exactly one right run, and what the audit log holds is told to whoever listens.

An incoming event's name is the run key, so that an event handed out twice is one run. It is acknowledged by the tick after the one that
asked for the run: by then Dagster has written that request down, and goes on with it itself if it is killed. The outgoing side reads the
audit log from where it last stood, so that nothing is told that did not happen, and everything is told at least once.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import dagster as dg

from platform_assets import keys
from platform_assets.components import subjects
from platform_assets.components.retraining_history import ASKED
from platform_assets.errors import EventError, FalajError
from platform_assets.specs.events import (
    ApprovalGiven,
    DataLanded,
    ErasureAsked,
    Event,
    LabelsLanded,
    RetrainingAsked,
    check_age,
    read_event,
)
from resources.dagster_instance import gate
from resources.events import GROUP

if TYPE_CHECKING:
    from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

    from platform_assets.specs.events import Delivery
    from resources.parts import Parts

_TICK_SECONDS = 5
_TELL_SECONDS = 15
_A_TICK = 100  # events
_LEASE_SECONDS = 120.0
SOURCE = "/falaj"
_TOLD = {
    "release": "falaj.release.made",
    "rollout": "falaj.rollout.decided",
    "hold": "falaj.budget.broken",
    "refuse": "falaj.budget.broken",
    ASKED: "falaj.drift.found",
}


def build_event_sensors(parts: Parts, jobs: Sequence[UnresolvedAssetJobDefinition]) -> list[dg.SensorDefinition]:
    """Build the sensor of the inbox and that of the outbox."""
    return [_arrived(parts, jobs), _told(parts)]


def _arrived(parts: Parts, jobs: Sequence[UnresolvedAssetJobDefinition]) -> dg.SensorDefinition:
    @dg.sensor(
        name=keys.INBOX_SENSOR,
        description="An event that arrived (new data, labels, a retraining asked for, an approval) is acted on once.",
        jobs=list(jobs),
        minimum_interval_seconds=_TICK_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
    )
    def event_arrived(context: dg.SensorEvaluationContext) -> Iterator[dg.RunRequest | dg.SkipReason]:
        """Answer for the last tick's events, then act on those that wait; what cannot be acted on is a dead letter."""
        parts.inbox.acknowledge(GROUP, json.loads(context.cursor or "[]"))
        taken, buried = [], []
        for delivery in parts.inbox.claim(GROUP, most=_A_TICK, lease_seconds=_LEASE_SECONDS):
            try:
                request = act_on(delivery, parts, context.instance)
            except FalajError as error:
                _bury(delivery, str(error), parts)
                buried.append(str(error))
                continue
            taken.append(delivery.token)
            if request is not None:
                yield request
        context.update_cursor(json.dumps(taken))
        if not taken:
            yield dg.SkipReason("; ".join(buried) or "No event waits.")

    return event_arrived


def act_on(delivery: Delivery, parts: Parts, instance: dg.DagsterInstance) -> dg.RunRequest | None:
    """Return the run that an event asks for; None where it asked for something else, which is done. Raises FalajError with the reason."""
    event, data = read_event(delivery.body)
    check_age(event, now=datetime.now(UTC))
    tags = {"falaj/event": event.key, "falaj/trigger": "event", "falaj/actor": f"event from {event.source}"}
    match data:
        case DataLanded():
            job = keys.refresh_job(_known(data.dataset, parts.catalogue.datasets, "dataset"))
            tags.pop("falaj/trigger")
        case LabelsLanded():
            job = keys.monitor_job(_known(data.model, parts.catalogue.models, "model"))
            tags.pop("falaj/trigger")
        case RetrainingAsked():
            job = keys.train_job(_known(data.model, parts.catalogue.models, "model"))
            tags |= {"falaj/why": data.why} if data.why else {}
        case ApprovalGiven():
            run = gate.approve(instance, data.run, parts, who=data.by)
            parts.audit.append("event", subject=f"run/{run.run_id}", actor=data.by, detail={"event": event.key, "type": event.type})
            return None
        case ErasureAsked():
            # The journal is the request: sealed, one a person, so that no run's tags name anybody and twice asked is one erasure.
            mark = subjects.ask_erasure(parts, data.subject, by=f"event from {event.source}").mark
            actor = {"falaj/actor": tags["falaj/actor"]}
            return dg.RunRequest(run_key=f"erasure:{mark[:32]}:{event.id}", job_name=keys.ERASE_JOB, tags=actor)
        case _:
            raise EventError(f"type: {event.type} goes out and is not taken in")
    return dg.RunRequest(run_key=f"event:{event.key}", job_name=job, tags=tags)


def _known(name: str, declared: Any, what: str) -> str:
    if name not in declared:
        raise EventError(f"data.{what}: {name!r} is not declared; declared are {', '.join(sorted(declared))}")
    return name


def _bury(delivery: Delivery, why: str, parts: Parts) -> None:
    parts.audit.append("event_refused", subject="events/inbox", actor=GROUP, detail={"token": delivery.token, "why": why})
    parts.notifier.notify("an event could not be acted on", why, severity="warning")
    parts.inbox.bury(GROUP, delivery.token, why)


def _told(parts: Parts) -> dg.SensorDefinition:
    @dg.sensor(
        name=keys.OUTBOX_SENSOR,
        description="Releases, rollouts, drifts and broken budgets that the audit log holds go out as events.",
        minimum_interval_seconds=_TELL_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
    )
    def event_told(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        """Publish each new entry of the audit log that others are told of; an entry's number is the event's id."""
        after = int(context.cursor or 0)
        told = 0
        for entry in parts.audit.entries(after=after, most=_A_TICK):
            told += tell(entry, parts)
            after = int(entry["seq"])
        context.update_cursor(str(after))
        return dg.SkipReason(f"{told} events went out; the audit log is read up to entry {after}.")

    return event_told


def tell(entry: dict[str, Any], parts: Parts) -> bool:
    """Publish what one entry of the audit log means to others; False where it means nothing to them."""
    kind = _TOLD.get(entry["action"])
    if kind is None or (entry["action"] == ASKED and entry["detail"].get("trigger") != "drift"):
        return False
    what, _, name = entry["subject"].partition("/")
    return parts.outbox.publish(
        Event(
            id=f"{entry['seq']}-{entry['hash'][:12]}", source=SOURCE, type=kind, time=datetime.fromisoformat(entry["at"]), subject=name,
            data={what: name, "detail": entry["detail"]},
        )
    )  # fmt: skip
