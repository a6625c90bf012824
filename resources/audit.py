"""The audit log: append-only, hash-chained, in SQLite. Who may write what is decided by the callers.

Each entry's hash covers its fields and the hash before it; the length and newest hash stand beside the chain and are signed
(`audit_signature.py`) with each entry, so that a cut tail and a chain forged afresh show as well. A log that does not bear its signature
takes no more entries: signing on would make it good.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from platform_assets.errors import StateError
from resources.state import connect, write_alone

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from resources.audit_signature import HeadSigner

GENESIS = "0" * 64
_NOT_OURS: list[tuple[int, sqlite3.Connection] | None] = []
_FIELDS = ("seq", "at", "action", "subject", "actor", "detail", "previous")
_SCHEMA = """
CREATE TABLE IF NOT EXISTS audit (
    seq INTEGER PRIMARY KEY, at TEXT NOT NULL, action TEXT NOT NULL, subject TEXT NOT NULL, actor TEXT NOT NULL,
    detail TEXT NOT NULL, previous TEXT NOT NULL, hash TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS audit_subject ON audit (subject);
CREATE TABLE IF NOT EXISTS audit_head (one INTEGER PRIMARY KEY CHECK (one = 1), length INTEGER NOT NULL, hash TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS audit_signature (one INTEGER PRIMARY KEY CHECK (one = 1), length INTEGER NOT NULL, signature BLOB NOT NULL);
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
    """Entries in one table of the state file; concurrent writers wait for each other.

    Each thread keeps its connection, which is most of an entry's time; a forked child opens its own.
    """

    def __init__(self, path: Path, *, signer: HeadSigner) -> None:
        self._path, self._signer = path, signer
        self._mine = threading.local()
        self._signed: tuple[int, str] | None = None  # the last head that this process signed

    def append(self, action: str, *, subject: str, actor: str, detail: Mapping[str, Any]) -> str:
        """Write one entry, stamped with the wall clock in UTC; return its hash. It is on disk when this returns."""
        state = self._connect()
        with write_alone(state):
            length, previous = _head(state)
            if (length, previous) != self._signed:
                self._check_signature(state, length, previous)
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
            state.execute(
                "INSERT OR REPLACE INTO audit_signature VALUES (1, ?, ?)", (entry["seq"], self._signer.sign(entry["seq"], entry["hash"]))
            )
        self._signed = (entry["seq"], entry["hash"])
        return str(entry["hash"])

    def entries(self, *, subject: str | None = None, after: int = 0, most: int | None = None) -> list[dict[str, Any]]:
        """Return entries in order, `detail` parsed."""
        state = self._connect()
        return [{**entry, "detail": json.loads(entry["detail"])} for entry in _walk(state, subject, after=after, most=most)]

    def verify(self) -> int:
        """Walk the chain and check its signature; return its length, or raise StateError naming the first entry that does not fit."""
        state = self._connect()
        state.execute("BEGIN")  # one snapshot for entries and head, whoever writes meanwhile
        try:
            head = _head(state)
            length = check_chain(_walk(state, None), head=head)
            self._check_signature(state, *head)
        finally:
            state.execute("ROLLBACK")
        return length

    def checkpoint(self) -> dict[str, Any]:
        """Return the signed head, to be kept elsewhere: length, hash, signature (hexadecimal)."""
        self.verify()
        state = self._connect()
        length, newest = _head(state)
        return {"length": length, "hash": newest, "signature": self._signer.sign(length, newest).hex()}

    def check_checkpoint(self, checkpoint: Mapping[str, Any]) -> None:
        """Raise StateError where the log is not a continuation of what was signed then."""
        length, newest = int(checkpoint["length"]), str(checkpoint["hash"])
        self._signer.check(length, newest, bytes.fromhex(checkpoint["signature"]))
        if length and [one["hash"] for one in self.entries(after=length - 1, most=1)] != [newest]:
            raise StateError(
                f"audit log: entry {length} is not the one of the checkpoint; the log was forged, or put back to an earlier state"
            )

    def _check_signature(self, state: sqlite3.Connection, length: int, newest: str) -> None:
        if not length or not self._signer.is_made():  # the first signature takes over what a home had before there were any
            return
        found = state.execute("SELECT signature FROM audit_signature WHERE length = ?", (length,)).fetchone()
        if found is None:
            raise StateError(
                f"audit log: its head (entry {length}) bears no signature; it was written by somebody else, or the signature was taken away"
            )
        self._signer.check(length, newest, found[0])

    def _connect(self) -> sqlite3.Connection:
        kept: tuple[int, sqlite3.Connection] | None = getattr(self._mine, "kept", None)
        if kept is None or kept[0] != os.getpid():
            _NOT_OURS.append(kept)  # a child must not even close what it inherited
            kept = self._mine.kept = (os.getpid(), connect(self._path, schema=_SCHEMA))
        return kept[1]


def _head(state: sqlite3.Connection) -> tuple[int, str]:
    return state.execute("SELECT length, hash FROM audit_head").fetchone() or (0, GENESIS)


def _walk(state: sqlite3.Connection, subject: str | None, *, after: int = 0, most: int | None = None) -> Iterator[dict[str, Any]]:
    names = (*_FIELDS, "hash")
    rows = state.execute(
        f"SELECT {', '.join(names)} FROM audit WHERE (?1 IS NULL OR subject = ?1) AND seq > ?2 ORDER BY seq LIMIT ?3",  # noqa: S608 - our own column names
        (subject, after, -1 if most is None else most),
    )
    return (dict(zip(names, row, strict=True)) for row in rows)
