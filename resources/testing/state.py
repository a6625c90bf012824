"""Fakes of the state ports, in memory: clock, audit log, ledger, notifier."""

from __future__ import annotations

import json
import sqlite3
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from platform_assets.errors import StateError
from resources.audit import GENESIS, check_chain, hash_entry
from resources.clock import to_naive_utc
from resources.ledger import BEAT_SECONDS, SCHEMA, Ledger, SqliteUnit

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


class MemoryClock:
    """A clock a stream."""

    def __init__(self) -> None:
        self._stands_at: dict[str, datetime] = {}

    def now(self, stream: str) -> datetime:
        """Return what time it is for this stream."""
        return self._stands_at.get(stream) or to_naive_utc(datetime.now(UTC))

    def advance(self, stream: str, to: datetime) -> datetime:
        """Move this stream's clock forward, never back."""
        at = to_naive_utc(to)
        self._stands_at[stream] = max(self._stands_at.get(stream, at), at)
        return self._stands_at[stream]


class MemoryAuditLog:
    """The same chain, in a list."""

    def __init__(self) -> None:
        self._chain: list[dict[str, Any]] = []
        self._head = (0, GENESIS)

    def append(self, action: str, *, subject: str, actor: str, detail: Mapping[str, Any]) -> str:
        """Write one entry; return its hash."""
        length, previous = self._head
        entry: dict[str, Any] = {
            "seq": length + 1,
            "at": datetime.now(UTC).isoformat(timespec="microseconds"),
            "action": action,
            "subject": subject,
            "actor": actor,
            "detail": json.dumps(dict(detail), sort_keys=True, separators=(",", ":"), allow_nan=False),
            "previous": previous,
        }
        entry["hash"] = hash_entry(entry)
        self._chain.append(entry)
        self._head = (entry["seq"], entry["hash"])
        return str(entry["hash"])

    def entries(self, *, subject: str | None = None, after: int = 0, most: int | None = None) -> list[dict[str, Any]]:
        """Return entries in order."""
        found = [one for one in self._chain if subject in (None, one["subject"]) and one["seq"] > after]
        return [{**entry, "detail": json.loads(entry["detail"])} for entry in found[:most]]

    def verify(self) -> int:
        """Walk the chain."""
        return check_chain(iter(self._chain), head=self._head)

    def checkpoint(self) -> dict[str, Any]:
        """Return length and newest hash; nobody signs what ends with the process."""
        return {"length": self._head[0], "hash": self._head[1], "signature": ""}

    def check_checkpoint(self, checkpoint: Mapping[str, Any]) -> None:
        """Raise StateError where another entry stands there."""
        length = checkpoint["length"]
        if length and [one["hash"] for one in self._chain[length - 1 : length]] != [checkpoint["hash"]]:
            raise StateError(f"audit log: entry {length} is not the one of the checkpoint")


class MemoryLedger(Ledger):
    """The same rules, in a database that is gone with this object."""

    def __init__(self, *, beat_seconds: float = BEAT_SECONDS) -> None:
        super().__init__(beat_seconds=beat_seconds)
        self._connection = sqlite3.connect(":memory:", check_same_thread=False, isolation_level=None)
        self._connection.executescript(SCHEMA)
        self._lock = threading.RLock()

    @contextmanager
    def opened(self) -> Iterator[SqliteUnit]:
        """Use the one connection, alone."""
        with self._lock:
            yield SqliteUnit(self._connection)

    alone = opened


@dataclass(frozen=True)
class Message:
    """One message as it was told."""

    title: str
    text: str
    severity: str
    key: str = ""


class RecordingNotifier:
    """Keeps what it was told, for tests to look at."""

    def __init__(self) -> None:
        self.messages: list[Message] = []

    def notify(self, title: str, text: str, *, severity: str, key: str = "") -> None:
        """Keep one message."""
        self.messages.append(Message(title, text, severity, key))
