"""Writes of online values into Redis, in bulk and without Feast. The layout is `platform_assets.stages.serving.online_redis`'s.

Each row is written whole, and only over an older one: what is compared and what is written is one script. The pin comes last, so that a
killed write is gone on with by the next. A view that was begun anew meanwhile, or lost with its server's memory, takes no more rows of it.
"""

from __future__ import annotations

import uuid
from binascii import b2a_base64
from contextlib import contextmanager
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Any

import orjson

from platform_assets.errors import StateError
from platform_assets.specs.record_json import to_json
from platform_assets.stages.features.schema import EVENT_TIMESTAMP
from platform_assets.stages.serving.online_redis import (
    BEGUN_FIELD,
    EVENT_DIGITS,
    EVENT_OFFSET,
    KINDS_FIELD,
    PIN_FIELD,
    RedisOnlineReader,
    RedisPlace,
    connect,
    field_of,
    hash_of,
)
from resources.feast_store.values import as_stored, newest_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    import pyarrow as pa

    from platform_assets.specs.records import ViewTable

_ANSWER_SECONDS, _TRIES = 10.0, 3
_ROWS_A_SCRIPT = 500  # Redis does nothing else for so many, about a millisecond; Lua unpacks at most 8,000 values
_SCRIPTS_A_CALL = 16
_BEGIN = """
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then
    redis.call('UNLINK', KEYS[1])
    redis.call('HSET', KEYS[1], ARGV[1], ARGV[2], ARGV[3], ARGV[4])
end
return redis.call('HGET', KEYS[1], ARGV[3])
"""
# Fields of entities, then as many values; -1 where the view is not the one that was begun.
_PUT = f"""
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return -1 end
local count = (#ARGV - 2) / 2
local held, put = redis.call('HMGET', KEYS[1], unpack(ARGV, 3, count + 2)), {{}}
for at = 1, count do
    local old, new = held[at], ARGV[count + 2 + at]
    if not old or (new ~= old and string.sub(new, 1, {EVENT_DIGITS}) >= string.sub(old, 1, {EVENT_DIGITS})) then
        put[#put + 1] = ARGV[at + 2]
        put[#put + 1] = new
    end
end
if #put > 0 then redis.call('HSET', KEYS[1], unpack(put)) end
return #put / 2
"""
_PIN = """
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return -1 end
redis.call('HSET', KEYS[1], ARGV[3], ARGV[4])
return 0
"""


class RedisValues:
    """Newest values in one Redis database."""

    def __init__(self, place: RedisPlace) -> None:
        self._place = place

    def pin(self, view: str) -> str | None:
        """Return the pin that a view's values stand at."""
        with self._reached():
            found: bytes | None = self._client.hget(hash_of(view), PIN_FIELD)
        return None if found is None else found.decode()

    def ensure(self, view: str, *, kinds: Mapping[str, str]) -> None:
        """Make room for a view."""
        self._begin(view, kinds)

    def write_view(self, view: ViewTable, rows: pa.Table) -> int:
        """Write the newest row of each entity, then the pin."""
        begun = self._begin(view.name, view.kinds)
        written = self._put(view.name, begun, _encode_table(newest_of(rows, view), view))
        with self._reached():
            answer = self._client.eval(_PIN, 1, hash_of(view.name), BEGUN_FIELD, begun, PIN_FIELD, to_json(view.pin))
        self._check(view.name, answer)
        return written

    def upsert(self, view: str, *, kinds: Mapping[str, str], rows: Iterable[tuple[Any, ...]]) -> int:
        """Write rows; of several of one entity the newest, of equal times the later."""
        newest: dict[str, tuple[Any, ...]] = {}
        for row in rows:
            if row[0] not in newest or row[1] >= newest[row[0]][1]:
                newest[row[0]] = row
        return self._put(view, self._begin(view, kinds), _encode_rows(newest.values(), list(kinds.values())))

    def held(self, view: str, entities: Sequence[str]) -> int:
        """Count those of these entities that have values."""
        if not entities:
            return 0
        with self._reached():
            return sum(value is not None for value in self._client.hmget(hash_of(view), [field_of(entity) for entity in entities]))

    def forget(self, view: str, entities: Sequence[str]) -> int:
        """Delete the rows of these entities. The server's own log of writes holds them until it is written anew, which is asked for."""
        import redis

        if not entities:
            return 0
        with self._reached():
            gone = int(self._client.hdel(hash_of(view), *map(field_of, entities)))
            if gone:
                try:
                    self._client.bgrewriteaof()
                except redis.ResponseError as error:  # one is under way; this one is made after it
                    if "in progress" not in str(error).lower():
                        raise
        return gone

    def drop(self, view: str) -> None:
        """Remove a view's values."""
        with self._reached():
            self._client.unlink(hash_of(view))

    def reader(self) -> RedisOnlineReader:
        """Return what the inference server reads them with."""
        return RedisOnlineReader(self._place)

    @cached_property
    def _client(self) -> Any:
        return connect(self._place, seconds=_ANSWER_SECONDS, tries=_TRIES)

    def _begin(self, view: str, kinds: Mapping[str, str]) -> bytes:
        with self._reached():
            begun: bytes = self._client.eval(
                _BEGIN, 1, hash_of(view), KINDS_FIELD, orjson.dumps(dict(kinds)), BEGUN_FIELD, uuid.uuid4().hex
            )
        return begun

    def _put(self, view: str, begun: bytes, rows: Iterator[tuple[bytes, bytes]]) -> int:
        written, name = 0, hash_of(view)
        while True:
            with self._reached():
                calls = self._client.pipeline(transaction=False)
                while len(calls) < _SCRIPTS_A_CALL and (some := list(islice(rows, _ROWS_A_SCRIPT))):
                    calls.eval(_PUT, 1, name, BEGUN_FIELD, begun, *(field for field, _ in some), *(value for _, value in some))
                if not len(calls):
                    return written
                for answer in calls.execute():
                    self._check(view, answer)
                    written += answer

    def _check(self, view: str, answer: int) -> None:
        if answer < 0:
            raise StateError(
                f"the online values of {view} in {self._place.name} were begun anew, or lost, while they were written; run it again"
            )

    @contextmanager
    def _reached(self) -> Iterator[None]:
        import redis

        try:
            yield
        except (redis.RedisError, OSError) as error:
            raise StateError(f"{self._place.name} could not be used for online values: {' '.join(str(error).split())}") from None


def _encode_table(rows: pa.Table, view: ViewTable) -> Iterator[tuple[bytes, bytes]]:
    """Yield field and value of each row, a slice of the table at a time."""
    import numpy as np
    import pyarrow as pa

    numbers = [name for name, kind in view.kinds.items() if kind == "numeric"]
    others = [(name, kind) for name, kind in view.kinds.items() if kind != "numeric"]
    width, step = 8 * len(numbers), _ROWS_A_SCRIPT * _SCRIPTS_A_CALL
    for start in range(0, rows.num_rows, step):
        part = rows.slice(start, step)
        block = np.empty((part.num_rows, len(numbers)), "<f8")
        for at, name in enumerate(numbers):
            block[:, at] = part[name].to_numpy()
        block[np.isnan(block)] = np.nan  # one NaN for all, so that equal rows are equal bytes
        packed = block.tobytes()
        events = part[EVENT_TIMESTAMP].cast(pa.timestamp("us")).cast(pa.int64()).to_pylist()
        fields = map(field_of, part[view.entity].to_pylist())
        if not others:
            for at, (field, event) in enumerate(zip(fields, events, strict=True)):
                yield field, b"%020d%b" % (event + EVENT_OFFSET, packed[at * width : (at + 1) * width])
            continue
        columns = [_as_json(as_stored(part[name], kind), kind) for name, kind in others]
        for at, (field, event, *rest) in enumerate(zip(fields, events, *columns, strict=True)):
            yield field, b"%020d%b%b" % (event + EVENT_OFFSET, packed[at * width : (at + 1) * width], orjson.dumps(rest))


def _encode_rows(rows: Iterable[tuple[Any, ...]], kinds: Sequence[str]) -> Iterator[tuple[bytes, bytes]]:
    import struct

    for entity, event, *values in rows:
        pairs = list(zip(values, kinds, strict=True))
        numbers = [float("nan") if value is None else value for value, kind in pairs if kind == "numeric"]
        others = [_as_json([value], kind)[0] for value, kind in pairs if kind != "numeric"]
        rest = orjson.dumps(others) if others else b""
        yield field_of(entity), b"%020d%b%b" % (event + EVENT_OFFSET, struct.pack(f"<{len(numbers)}d", *numbers), rest)


def _as_json(values: list[Any], kind: str) -> list[Any]:
    return [value and b2a_base64(value, newline=False).decode() for value in values] if kind == "image" else values
