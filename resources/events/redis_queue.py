"""Events in Redis Streams: consumer groups, pending entries that are claimed again, a stream of dead letters a group.

A stream holds what was published; `again:GROUP` what is to be handed out to one group once more. `seen:SOURCE#ID` keys make an id count
once. What must happen together is one script or one transaction of Redis.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import redis

from platform_assets.errors import EventError
from platform_assets.specs.events import DeadLetter, Delivery, mentions
from resources.events.sqlite_queue import KEPT_SECONDS, MOST_ATTEMPTS, TOO_OFTEN

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from platform_assets.specs.events import Event

_CONSUMER = "one"  # members of a group share it: a lease ends by itself, whoever held it
_CONNECT_SECONDS, _ANSWER_SECONDS = 5.0, 10.0
_PUBLISH = """
if redis.call('SET', KEYS[2], '1', 'NX', 'EX', ARGV[2]) then
    redis.call('XADD', KEYS[1], 'MINID', '~', ARGV[3], '*', 'event', ARGV[1])
    return 1
end
return 0
"""
_BURY = """
local found = redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[2], ARGV[2], 1)
if #found == 0 then return 0 end
local entry = redis.call('XRANGE', KEYS[1], ARGV[2], ARGV[2])
redis.call('XADD', KEYS[2], '*', 'event', #entry > 0 and entry[1][2][2] or '', 'why', ARGV[3], 'at', ARGV[4])
redis.call('XACK', KEYS[1], ARGV[1], ARGV[2])
return 1
"""
_REPLAY = """
local found = redis.call('XRANGE', KEYS[1], ARGV[1], ARGV[1])
if #found == 0 then return 0 end
redis.call('XADD', KEYS[2], '*', 'event', found[1][2][2])
redis.call('XDEL', KEYS[1], ARGV[1])
return 1
"""


class RedisEventQueue:
    """One queue of a Redis database; the platform's EventQueue port."""

    def __init__(self, url: str, name: str) -> None:
        self._url, self._name = url, name
        self._redis: Any = redis.Redis.from_url(url, socket_connect_timeout=_CONNECT_SECONDS, socket_timeout=_ANSWER_SECONDS)
        self._stream = f"falaj:events:{name}"

    def publish(self, event: Event) -> bool:
        """Put an event in."""
        with self._reached():
            oldest = int(1000 * (time.time() - KEPT_SECONDS))
            seen = f"{self._stream}:seen:{event.key}"
            return bool(self._redis.eval(_PUBLISH, 2, self._stream, seen, event.encode(), int(KEPT_SECONDS), oldest))

    def claim(self, group: str, *, most: int = 100, lease_seconds: float = 60.0) -> list[Delivery]:
        """Hand out what waits."""
        found: list[Delivery] = []
        with self._reached():
            for stream in self._streams(group):
                if len(found) >= most:
                    break
                self._open_group(stream, group)
                late = self._redis.xautoclaim(stream, group, _CONSUMER, int(1000 * lease_seconds), "0-0", count=most - len(found))[1]
                for entry, fields in late:
                    pending = self._redis.xpending_range(stream, group, entry, entry, 1)
                    if not pending:  # answered for meanwhile
                        continue
                    attempts = pending[0]["times_delivered"]
                    if attempts > MOST_ATTEMPTS:
                        self._bury(stream, group, entry, TOO_OFTEN)
                    else:
                        found.append(Delivery(_token(stream, entry), fields.get(b"event", b""), attempts))
                if len(found) < most:
                    fresh = self._redis.xreadgroup(group, _CONSUMER, {stream: ">"}, count=most - len(found))
                    found += [Delivery(_token(stream, entry), fields.get(b"event", b""), 1) for _, part in fresh for entry, fields in part]
        return found

    def acknowledge(self, group: str, tokens: Sequence[str]) -> None:
        """Answer for deliveries."""
        with self._reached():
            for stream in self._streams(group):
                entries = [entry for place, entry in map(_split, tokens) if place == stream]
                if entries:
                    self._redis.xack(stream, group, *entries)

    def bury(self, group: str, token: str, why: str) -> None:
        """Put a delivery among the dead letters."""
        with self._reached():
            stream, entry = _split(token)
            self._bury(stream, group, entry, why)

    def dead(self, group: str) -> list[DeadLetter]:
        """List the dead letters."""
        with self._reached():
            return [
                DeadLetter(entry.decode(), fields[b"event"], fields[b"why"].decode(), datetime.fromtimestamp(float(fields[b"at"]), UTC))
                for entry, fields in self._redis.xrange(self._dead(group))
            ]

    def replay(self, group: str, token: str) -> None:
        """Hand a dead letter out again."""
        with self._reached():
            try:
                found = self._redis.eval(_REPLAY, 2, self._dead(group), self._again(group), token)
            except redis.ResponseError:  # a token that is no entry's id
                found = 0
        if not found:
            raise EventError(f"{self._name} has no dead letter {token!r}")

    def waiting(self, group: str) -> int:
        """Count what is neither acknowledged nor buried."""
        total = 0
        with self._reached():
            for stream in self._streams(group):
                self._open_group(stream, group)
                known = next(one for one in self._redis.xinfo_groups(stream) if one["name"].decode() == group)
                fresh = self._redis.xrange(stream, f"({known['last-delivered-id'].decode()}")
                total += known["pending"] + len(fresh)
        return total

    def erase(self, texts: Sequence[str]) -> int:
        """Delete entries of the stream and of every group's streams; what a group holds of them is dropped when it claims again."""
        gone = set()
        with self._reached():
            for stream in self._redis.scan_iter(match=f"{self._stream}*", _type="stream"):
                for entry, fields in self._redis.xrange(stream):
                    if mentions(fields.get(b"event", b""), texts):
                        self._redis.xdel(stream, entry)
                        gone.add(fields[b"event"])
        return len(gone)

    def _bury(self, stream: str, group: str, entry: str | bytes, why: str) -> None:
        self._redis.eval(_BURY, 2, stream, self._dead(group), group, entry, why, time.time())

    def _open_group(self, stream: str, group: str) -> None:
        # Each time: a server that lost its memory has no groups either.
        try:
            self._redis.xgroup_create(stream, group, id="0", mkstream=True)
        except redis.ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise

    def _streams(self, group: str) -> tuple[str, str]:
        return self._again(group), self._stream

    def _again(self, group: str) -> str:
        return f"{self._stream}:again:{group}"

    def _dead(self, group: str) -> str:
        return f"{self._stream}:dead:{group}"

    @contextmanager
    def _reached(self) -> Iterator[None]:
        try:
            yield
        except redis.RedisError as error:
            place = self._url.rpartition("@")[2]  # never the password
            raise EventError(f"the event queue at {place} does not answer ({error}); start it, or mend FALAJ_EVENTS") from None


def _token(stream: str, entry: bytes) -> str:
    return f"{stream}|{entry.decode()}"


def _split(token: str) -> tuple[str, str]:
    stream, _, entry = token.rpartition("|")
    return stream, entry
