r"""Online features in Redis as the inference server reads them: a hash a view, a field an entity. Nothing here writes.

`falaj:online:VIEW` holds under `\0kinds` the kinds of its features (JSON, in order), under `\0begun` when it was begun, under `\0pin` the
version of the table that its values stand at, and under each entity its newest row: the event time in 20 digits, so that order of texts is
order of times; then the numbers (float64, little-endian, NaN missing); then the other values as a JSON list (dates in microseconds, images
base64 of float32), nothing where there are none.
"""

from __future__ import annotations

import struct
from array import array
from binascii import a2b_base64
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path  # when it runs: Feast's configuration reads the types of a place
from time import monotonic
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import orjson

from platform_assets.errors import StateError
from platform_assets.stages.serving.online import MICROSECONDS_A_DAY, NewestValues

if TYPE_CHECKING:
    from platform_assets.stages.serving.online import OnlineValue

KINDS_FIELD, BEGUN_FIELD, PIN_FIELD = b"\0kinds", b"\0begun", b"\0pin"
EVENT_DIGITS, EVENT_OFFSET = 20, 10**19  # microseconds since 1970-01-01, moved so that none is negative
_READ_SECONDS = 0.25  # a request waits for it
_PAUSE_SECONDS = 1.0  # after a failure nobody asks for so long: requests are answered without


@dataclass(frozen=True)
class RedisPlace:
    """Where a Redis is and how it is spoken to; passwords stand in the file."""

    url: str
    password_file: Path | None = None
    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None

    @property
    def name(self) -> str:
        """Host and port, for sentences."""
        found = urlsplit(self.url)
        return f"Redis at {found.hostname}:{found.port or 6379}"


def connect(place: RedisPlace, *, seconds: float, tries: int) -> Any:
    """Return a client that waits so long for a connection and for an answer; StateError where a file cannot be read."""
    import redis
    from redis.backoff import ConstantBackoff
    from redis.retry import Retry

    try:
        password = place.password_file.read_text(encoding="utf-8").strip() if place.password_file is not None else None
    except (OSError, UnicodeDecodeError) as error:
        raise StateError(f"the password of {place.name} cannot be read from {place.password_file}: {error}") from None
    tls = {} if place.ca is None else {
        "ssl_ca_certs": str(place.ca), "ssl_cert_reqs": "required", "ssl_check_hostname": True,
        "ssl_certfile": place.certificate and str(place.certificate), "ssl_keyfile": place.key and str(place.key),
    }  # fmt: skip
    return redis.Redis.from_url(
        place.url,
        password=password,
        socket_connect_timeout=seconds,
        socket_timeout=seconds,
        retry=Retry(ConstantBackoff(0.05), tries),
        **tls,
    )


def hash_of(view: str) -> str:
    """Return the key of a view's hash."""
    return f"falaj:online:{view}"


def field_of(entity: str) -> bytes:
    """Return the field of an entity; none is one of the fields that begin with NUL and speak of the view."""
    return entity.encode() if not entity.startswith("\0") else b"\0" + entity.encode()


class RedisOnlineReader(NewestValues):
    """Reads newest feature values by entity, as `online.OnlineReader` does, over a kept connection.

    StateError where Redis does not answer; for a second after that it is not asked again, so that a request waits for it once.
    """

    entities_a_call = 1000  # Redis does nothing else meanwhile

    def __init__(self, place: RedisPlace) -> None:
        self._place = place
        self._rows: dict[str, tuple[bytes, _Row]] = {}
        self._fault, self._ask_again_at = "", 0.0

    def close(self) -> None:
        """Close the kept connection; the next read opens a new one."""
        if "_client" in self.__dict__:
            self._client.close()

    @cached_property
    def _client(self) -> Any:
        return connect(self._place, seconds=_READ_SECONDS, tries=1)

    def _read_chunk(self, view: str, wanted: list[str]) -> dict[str, tuple[int, dict[str, OnlineValue]]]:
        # Kinds and rows in one command: a writer may begin the view anew between two.
        kinds, *held = self._ask(hash_of(view), [KINDS_FIELD, *map(field_of, wanted)])
        if kinds is None:
            return {}
        known = self._rows.get(view)
        if known is None or known[0] != kinds:
            known = self._rows[view] = kinds, _Row(orjson.loads(kinds))
        return {entity: known[1].read(value) for entity, value in zip(wanted, held, strict=True) if value is not None}

    def _ask(self, name: str, fields: list[bytes]) -> list[bytes | None]:
        import redis

        if monotonic() < self._ask_again_at:
            raise StateError(self._fault)
        try:
            answer: list[bytes | None] = self._client.hmget(name, fields)
        except (redis.RedisError, OSError) as error:
            self._fault = f"{self._place.name} was asked for online values and said: {' '.join(str(error).split())}"
            self._ask_again_at = monotonic() + _PAUSE_SECONDS
            raise StateError(self._fault) from None
        return answer


class _Row:
    """How a row of a view is read."""

    def __init__(self, kinds: dict[str, str]) -> None:
        self._numbers = [name for name, kind in kinds.items() if kind == "numeric"]
        self._others = [(name, kind) for name, kind in kinds.items() if kind != "numeric"]
        self._layout = struct.Struct(f"<{len(self._numbers)}d")
        self._missing = dict.fromkeys(kinds)  # for their order, too

    def read(self, value: bytes) -> tuple[int, dict[str, OnlineValue]]:
        """Return event time and values of a stored row."""
        numbers = zip(self._numbers, self._layout.unpack_from(value, EVENT_DIGITS), strict=True)
        found: dict[str, OnlineValue] = self._missing | {name: None if number != number else number for name, number in numbers}  # noqa: PLR0124 NaN
        if self._others:
            for (name, kind), other in zip(self._others, orjson.loads(value[EVENT_DIGITS + self._layout.size :]), strict=True):
                found[name] = _as_model_takes_it(other, kind)
        return int(value[:EVENT_DIGITS]) - EVENT_OFFSET, found


def _as_model_takes_it(value: Any, kind: str) -> OnlineValue:
    if value is None:
        return None
    if kind == "date":
        return float(value) / MICROSECONDS_A_DAY
    if kind == "image":
        return tuple(array("f", a2b_base64(value)))
    text: str = value
    return text
