"""The verbs of `falaj events`: thin calls on the queues of this home."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from platform_assets.errors import EventError
from platform_assets.main_job import site
from platform_assets.specs.events import INCOMING, Event, parse_fields, read_event
from resources.events import GROUP, INBOX, OUTBOX, open_queue

if TYPE_CHECKING:
    from platform_assets.ports import EventQueue
    from resources.settings import Settings

SOURCE = "/falaj/cli"


def send(settings: Settings, kind: str, *, fields: Sequence[str], event_id: str | None) -> str:
    """Put an event into the inbox; return a sentence. Raises EventError for an unknown type or wrong data, and puts nothing in."""
    if kind not in INCOMING:
        raise EventError(f"{kind!r} is no type that is taken in; right would be one of {', '.join(INCOMING)}")
    event = Event(id=event_id or uuid4().hex, source=SOURCE, type=kind, time=datetime.now(UTC), data=parse_fields(list(fields)))
    read_event(event.encode())
    fresh = _open(settings, INBOX).publish(event)
    return f"{event.key} waits in the inbox." if fresh else f"{event.key} had been sent before; nothing was put in."


def list_inbox(settings: Settings) -> dict[str, Any]:
    """Return how many events wait, and the dead letters."""
    inbox = _open(settings, INBOX)
    letters = [
        {"token": one.token, "why": one.why, "at": one.at.isoformat(timespec="seconds"), "event": one.body.decode(errors="replace")}
        for one in inbox.dead(GROUP)
    ]
    return {"waiting": inbox.waiting(GROUP), "dead": letters}


def replay(settings: Settings, token: str) -> None:
    """Hand a dead letter out again. Raises EventError where there is none."""
    _open(settings, INBOX).replay(GROUP, token)


def read_outbox(settings: Settings, *, group: str, most: int, keep: bool) -> Iterator[str]:
    """Yield events as lines of JSON; each batch is acknowledged once it was taken, unless it is kept."""
    outbox = _open(settings, OUTBOX)
    found = outbox.claim(group, most=most)
    for one in found:
        yield json.dumps(json.loads(one.body), separators=(",", ":"))
    if not keep:
        outbox.acknowledge(group, [one.token for one in found])


def _open(settings: Settings, name: str) -> EventQueue:
    site.prepare(settings)
    return open_queue(name, url=settings.events, path=settings.home.events)
