"""The audit log: append-only, hash-chained, in SQLite. Who may write what is decided by the callers.

Each entry's hash covers its fields and the hash before it; the length and newest hash stand beside the chain, so that a
cut tail shows as well. That finds every edit made behind the log's back. It cannot stop somebody who may write the
file, knows the scheme and forges the whole chain anew: that needs a witness outside this machine.
"""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from platform_assets.errors import StateError
from resources.state import open_state, write_alone

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator, Mapping
    from pathlib import Path

GENESIS = "0" * 64
_FIELDS = ("seq", "at", "action", "subject", "actor", "detail", "previous")
_SCHEMA = """
CREATE TABLE IF NOT EXISTS audit (
    seq INTEGER PRIMARY KEY, at TEXT NOT NULL, action TEXT NOT NULL, subject TEXT NOT NULL, actor TEXT NOT NULL,
    detail TEXT NOT NULL, previous TEXT NOT NULL, hash TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS audit_subject ON audit (subject);
CREATE TABLE IF NOT EXISTS audit_head (one INTEGER PRIMARY KEY CHECK (one = 1), length INTEGER NOT NULL, hash TEXT NOT NULL);
CREATE TRIGGER IF NOT EXISTS audit_no_update BEFORE UPDATE ON audit BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
CREATE TRIGGER IF NOT EXISTS audit_no_delete BEFORE DELETE ON audit BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
CREATE TRIGGER IF NOT EXISTS audit_at_end BEFORE INSERT ON audit
    WHEN NEW.seq <> (SELECT coalesce(max(seq), 0) + 1 FROM audit) BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
CREATE TRIGGER IF NOT EXISTS audit_head_no_delete BEFORE DELETE ON audit_head
    BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
"""


def hash_entry(entry: Mapping[str, Any]) -> str:
    """SHA-256 over the canonical JSON (sorted keys, no spaces) of an entry's fields, `previous` included."""
    canonical = json.dumps({name: entry[name] for name in _FIELDS}, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def check_chain(entries: Iterator[Mapping[str, Any]], *, head: tuple[int, str]) -> int:
    """Walk entries in order against length and newest hash; return the length, or raise StateError naming the first that does not fit."""
    previous, length = GENESIS, 0
    for length, entry in enumerate(entries, start=1):
        if entry["seq"] != length:
            raise StateError(f"audit log: entry {length} is missing or out of order, entry {entry['seq']} stands in its place")
        if entry["previous"] != previous:
            raise StateError(f"audit log: entry {length} ({entry['action']}) does not follow the entry before it")
        if hash_entry(entry) != entry["hash"]:
            raise StateError(f"audit log: entry {length} ({entry['action']}) was altered after it was written")
        previous = entry["hash"]
    if length < head[0]:
        raise StateError(f"audit log: entry {length + 1} is missing, the log was cut after entry {length} of {head[0]}")
    if (length, previous) != head:
        raise StateError(f"audit log: entry {head[0] + 1 if length > head[0] else length} was not written by this log")
    return length


class SqliteAuditLog:
    """Entries in one table of the state file; concurrent writers wait for each other."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def append(self, action: str, *, subject: str, actor: str, detail: Mapping[str, Any]) -> str:
        """Write one entry, stamped with the wall clock in UTC; return its hash. It is on disk when this returns."""
        with open_state(self._path, schema=_SCHEMA) as state, write_alone(state):
            length, previous = _head(state)
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
            state.execute("INSERT INTO audit VALUES (:seq, :at, :action, :subject, :actor, :detail, :previous, :hash)", entry)
            state.execute(
                "INSERT INTO audit_head VALUES (1, ?, ?) ON CONFLICT(one) DO UPDATE SET length = excluded.length, hash = excluded.hash",
                (entry["seq"], entry["hash"]),
            )
        return str(entry["hash"])

    def entries(self, *, subject: str | None = None, after: int = 0, most: int | None = None) -> list[dict[str, Any]]:
        """Return entries in order, `detail` parsed."""
        with open_state(self._path, schema=_SCHEMA) as state:
            return [{**entry, "detail": json.loads(entry["detail"])} for entry in _walk(state, subject, after=after, most=most)]

    def verify(self) -> int:
        """Walk the chain; return its length, or raise StateError naming the first entry that does not fit."""
        with open_state(self._path, schema=_SCHEMA) as state:
            state.execute("BEGIN")  # one snapshot for entries and head, whoever writes meanwhile
            return check_chain(_walk(state, None), head=_head(state))


def _head(state: sqlite3.Connection) -> tuple[int, str]:
    return state.execute("SELECT length, hash FROM audit_head").fetchone() or (0, GENESIS)


def _walk(state: sqlite3.Connection, subject: str | None, *, after: int = 0, most: int | None = None) -> Iterator[dict[str, Any]]:
    names = (*_FIELDS, "hash")
    rows = state.execute(
        f"SELECT {', '.join(names)} FROM audit WHERE (?1 IS NULL OR subject = ?1) AND seq > ?2 ORDER BY seq LIMIT ?3",  # noqa: S608 - our own column names
        (subject, after, -1 if most is None else most),
    )
    return (dict(zip(names, row, strict=True)) for row in rows)
