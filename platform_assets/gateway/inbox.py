"""The webhook that takes events in: each message is verified, judged and put into the inbox, and only then answered with 2xx.

Asked again with the same id, as a sender does that was left without an answer, a message is known, and is no second event.
"""

from __future__ import annotations

import asyncio
import math
import re
import secrets
import sqlite3
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from starlette.requests import Request
from starlette.responses import Response

from platform_assets.errors import AccessError, EventError, FalajError, RequestError, StateError
from platform_assets.gateway import answers
from platform_assets.gateway.guard import BusyError, Guard
from platform_assets.gateway.login import client_address
from platform_assets.identity.limits import Buckets
from platform_assets.identity.webhooks import ID, check_message
from platform_assets.ports import EventQueue
from platform_assets.specs.events import MOST_BYTES, Event, check_age, read_event
from platform_assets.specs.senders import SenderSpec
from resources.senders import read_secrets

ROOM = "/events"
_JSON = re.compile(r"application/(?:cloudevents\+)?json(?:\s*;\s*charset=utf-8)?\s*", re.IGNORECASE)
_BODY_SECONDS = 10.0
_AGAIN_SECONDS = 30  # how soon a sender is told to try again while the inbox cannot be reached
_STRANGER = "nobody known"


class _RefusedError(RequestError):
    """A message that is not taken: with which status, and under which word it is counted."""

    def __init__(self, message: str, *, status: int, reason: str) -> None:
        super().__init__(message)
        self.status, self.reason = status, reason


@dataclass
class Inbox:
    """Who may send, into which queue, and how often: `buckets` are of senders whose signature held."""

    senders: Mapping[str, SenderSpec]
    queue: EventQueue
    guard: Guard
    buckets: Buckets = field(default_factory=lambda: Buckets(per_second=50, burst=500))
    clock: Callable[[], float] = time.time

    async def take(self, request: Request) -> Response:
        """Answer 202 once a new event is on disk, 200 where it was there before, else one sentence that says what is wrong."""
        try:
            event = await self._read(request)
            fresh = await asyncio.to_thread(self.queue.publish, event)
        except _RefusedError as error:
            return _say(error, status=error.status)
        except BusyError as error:
            return _say(error, status=429, again_seconds=math.ceil(error.wait_seconds))
        except (EventError, StateError, sqlite3.Error, OSError) as error:
            return _say(error, status=503, again_seconds=_AGAIN_SECONDS)
        return answers.answer({"event": event.key, "taken": "now" if fresh else "before"}, status=202 if fresh else 200)

    async def _read(self, request: Request) -> Event:
        """Return the event of a message that holds in every way; who is refused is counted in the audit log."""
        name = request.path_params["sender"]
        known, who = self.senders.get(name), _STRANGER
        try:
            body = await _read_body(request)
            keys = await asyncio.to_thread(read_secrets, known) if known else [secrets.token_bytes()]  # a stranger's name takes as long
            try:
                message = check_message(request.headers, body, secrets=keys, now=self.clock())
            except AccessError as error:
                await self.guard.failed("webhook: wrong signature", client_address(request))
                self.guard.check_lock(client_address(request))
                raise _RefusedError(str(error), status=401, reason="") from None
            except RequestError as error:
                raise _RefusedError(str(error), status=400, reason="header or time") from None
            assert known is not None  # nobody signs by a secret that was drawn just now
            who = f"{name} (webhook)"
            wait = self.buckets.wait_seconds(name, now=time.monotonic())
            if wait:
                raise BusyError("too many messages; send again later", wait_seconds=wait)
            return self._judge(body, name=name, message=message, sender=known)
        except _RefusedError as error:
            if error.reason:
                await self.guard.count_denial(who, f"webhook: {error.reason}")
            raise

    def _judge(self, body: bytes, *, name: str, message: str, sender: SenderSpec) -> Event:
        try:
            event, _ = read_event(body)
            check_age(event, now=datetime.fromtimestamp(self.clock(), UTC))
        except EventError as error:
            raise _RefusedError(str(error), status=400, reason="malformed or late event") from None
        if event.type not in sender.types:
            kinds = ", ".join(sender.types)
            raise _RefusedError(
                f"type: {event.type} may not be sent by {name}; it may send {kinds}", status=403, reason=f"type {event.type}"
            )
        if event.source != f"/{name}":
            raise _RefusedError(f"source: {event.source!r} is not this sender's; right would be '/{name}'", status=403, reason="source")
        if event.id != message:
            raise _RefusedError(f"id: {event.id!r} is not {ID}, {message!r}; a message is one event", status=400, reason="id")
        return event


async def _read_body(request: Request) -> bytes:
    if not _JSON.fullmatch(request.headers.get("content-type", "")) or "content-encoding" in request.headers:
        sentence = "the body must be one event as application/cloudevents+json (or application/json) in UTF-8, not compressed"
        raise _RefusedError(sentence, status=415, reason="content type")
    content = bytearray()
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            async for part in request.stream():
                content += part
                if len(content) > MOST_BYTES:
                    sentence = f"the body must be at most {MOST_BYTES} bytes: send a reference to what is larger"
                    raise _RefusedError(sentence, status=413, reason="too large")
    except TimeoutError:
        raise _RefusedError(f"the body did not come within {_BODY_SECONDS:.0f} s", status=408, reason="too slow") from None
    return bytes(content)


def _say(error: Exception, *, status: int, again_seconds: int | None = None) -> Response:
    headers = answers.GUARDED | ({} if again_seconds is None else {"Retry-After": str(again_seconds)})
    sentence = str(error) if isinstance(error, FalajError) else f"the inbox cannot be written ({error}); nothing was taken, send it again"
    return answers.answer({"errors": [{"message": sentence}]}, status=status, headers=headers)
