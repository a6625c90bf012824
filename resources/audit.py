"""The audit log: append-only, hash-chained, in SQLite or PostgreSQL. Who may write what is decided by the callers.

Each entry's hash covers its fields and the hash before it; the length and newest hash stand beside the chain and are signed
(`audit_signature.py`) with each entry, so that a cut tail and a chain forged afresh show as well. A log that does not bear its signature
takes no more entries: signing on would make it good.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from platform_assets.errors import StateError
from resources.databases import PostgresDatabase, SqliteUnit
from resources.state import connect, write_alone

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator, Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path

    from resources.audit_signature import HeadSigner
    from resources.databases import Dialect, Unit

GENESIS = "0" * 64
_NOT_OURS: list[tuple[int, sqlite3.Connection] | None] = []
_FIELDS = ("seq", "at", "action", "subject", "actor", "detail", "previous")
_TABLES = """
CREATE TABLE IF NOT EXISTS audit (
    seq INTEGER PRIMARY KEY, at TEXT NOT NULL, action TEXT NOT NULL, subject TEXT NOT NULL, actor TEXT NOT NULL,
    detail TEXT NOT NULL, previous TEXT NOT NULL, hash TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS audit_subject ON audit (subject);
CREATE TABLE IF NOT EXISTS audit_head (one INTEGER PRIMARY KEY CHECK (one = 1), length INTEGER NOT NULL, hash TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS audit_signature (one INTEGER PRIMARY KEY CHECK (one = 1), length INTEGER NOT NULL, signature {binary} NOT NULL);
"""
_SQLITE_RULES = """
CREATE TRIGGER IF NOT EXISTS audit_no_update BEFORE UPDATE ON audit BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
CREATE TRIGGER IF NOT EXISTS audit_no_delete BEFORE DELETE ON audit BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
CREATE TRIGGER IF NOT EXISTS audit_at_end BEFORE INSERT ON audit
    WHEN NEW.seq <> (SELECT coalesce(max(seq), 0) + 1 FROM audit) BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
CREATE TRIGGER IF NOT EXISTS audit_head_no_delete BEFORE DELETE ON audit_head
    BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
"""
_POSTGRESQL_RULES = """
CREATE OR REPLACE FUNCTION audit_refuse() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN RAISE EXCEPTION 'the audit log is append-only'; END $$;
CREATE OR REPLACE FUNCTION audit_at_end() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN
        IF NEW.seq <> (SELECT coalesce(max(seq), 0) + 1 FROM audit) THEN RAISE EXCEPTION 'the audit log is append-only'; END IF;
        RETURN NEW;
    END $$;
CREATE OR REPLACE TRIGGER audit_kept BEFORE UPDATE OR DELETE OR TRUNCATE ON audit EXECUTE FUNCTION audit_refuse();
CREATE OR REPLACE TRIGGER audit_at_end BEFORE INSERT ON audit FOR EACH ROW EXECUTE FUNCTION audit_at_end();
CREATE OR REPLACE TRIGGER audit_head_kept BEFORE DELETE OR TRUNCATE ON audit_head EXECUTE FUNCTION audit_refuse();
"""
SCHEMA: dict[Dialect, str] = {
    "sqlite": _TABLES.format(binary="BLOB") + _SQLITE_RULES,
    "postgresql": _TABLES.format(binary="BYTEA") + _POSTGRESQL_RULES,
}


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


class _ChainedLog:
    """The rules, over any SQL database."""

    def __init__(self, *, signer: HeadSigner) -> None:
        self._signer = signer
        self._signed: tuple[int, str] | None = None  # the last head that this process signed

    def _reading(self) -> AbstractContextManager[Unit]:
        """Open one snapshot, whoever writes meanwhile."""
        raise NotImplementedError

    def _alone(self) -> AbstractContextManager[Unit]:
        """Open a transaction in which nobody else writes."""
        raise NotImplementedError

    def append(self, action: str, *, subject: str, actor: str, detail: Mapping[str, Any]) -> str:
        """Write one entry, stamped with the wall clock in UTC; return its hash. It is on disk when this returns."""
        with self._alone() as unit:
            length, previous = _head(unit)
            if (length, previous) != self._signed:
                self._check_signature(unit, length, previous)
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
            unit.run("INSERT INTO audit VALUES (?, ?, ?, ?, ?, ?, ?, ?)", *(entry[name] for name in (*_FIELDS, "hash")))
            unit.run(
                "INSERT INTO audit_head VALUES (1, ?, ?) ON CONFLICT (one) DO UPDATE SET length = excluded.length, hash = excluded.hash",
                entry["seq"], entry["hash"],
            )  # fmt: skip
            unit.run(
                "INSERT INTO audit_signature VALUES (1, ?, ?) "
                "ON CONFLICT (one) DO UPDATE SET length = excluded.length, signature = excluded.signature",
                entry["seq"], self._signer.sign(entry["seq"], entry["hash"]),
            )  # fmt: skip
        self._signed = (entry["seq"], entry["hash"])
        return str(entry["hash"])

    def entries(self, *, subject: str | None = None, after: int = 0, most: int | None = None) -> list[dict[str, Any]]:
        """Return entries in order, `detail` parsed."""
        with self._reading() as unit:
            return [{**entry, "detail": json.loads(entry["detail"])} for entry in _walk(unit, subject, after=after, most=most)]

    def verify(self) -> int:
        """Walk the chain and check its signature; return its length, or raise StateError naming the first entry that does not fit."""
        return self._verified_head()[0]

    def checkpoint(self) -> dict[str, Any]:
        """Return the signed head, to be kept elsewhere: length, hash, signature (hexadecimal)."""
        length, newest = self._verified_head()
        return {"length": length, "hash": newest, "signature": self._signer.sign(length, newest).hex()}

    def check_checkpoint(self, checkpoint: Mapping[str, Any]) -> None:
        """Raise StateError where the log is not a continuation of what was signed then."""
        length, newest = int(checkpoint["length"]), str(checkpoint["hash"])
        self._signer.check(length, newest, bytes.fromhex(checkpoint["signature"]))
        if length and [one["hash"] for one in self.entries(after=length - 1, most=1)] != [newest]:
            raise StateError(
                f"audit log: entry {length} is not the one of the checkpoint; the log was forged, or put back to an earlier state"
            )

    def _verified_head(self) -> tuple[int, str]:
        with self._reading() as unit:
            head = _head(unit)
            check_chain(_walk(unit, None), head=head)
            self._check_signature(unit, *head)
        return head

    def _check_signature(self, unit: Unit, length: int, newest: str) -> None:
        if not length or not self._signer.is_made():  # the first signature takes over what a home had before there were any
            return
        found = unit.run("SELECT signature FROM audit_signature WHERE length = ?", length)
        if not found:
            raise StateError(
                f"audit log: its head (entry {length}) bears no signature; it was written by somebody else, or the signature was taken away"
            )
        self._signer.check(length, newest, found[0][0])


class SqliteAuditLog(_ChainedLog):
    """Entries in one table of the state file; concurrent writers wait for each other.

    Each thread keeps its connection, which is most of an entry's time; a forked child opens its own.
    """

    def __init__(self, path: Path, *, signer: HeadSigner) -> None:
        super().__init__(signer=signer)
        self._path = path
        self._mine = threading.local()

    @contextmanager
    def _reading(self) -> Iterator[Unit]:
        state = self._connect()
        state.execute("BEGIN")
        try:
            yield SqliteUnit(state)
        finally:
            state.execute("ROLLBACK")

    @contextmanager
    def _alone(self) -> Iterator[Unit]:
        state = self._connect()
        with write_alone(state):
            yield SqliteUnit(state)

    def close(self) -> None:
        """Close this thread's connection; the next call opens another."""
        kept = getattr(self._mine, "kept", None)
        if kept is not None and kept[0] == os.getpid():
            kept[1].close()
            del self._mine.kept

    def _connect(self) -> sqlite3.Connection:
        kept: tuple[int, sqlite3.Connection] | None = getattr(self._mine, "kept", None)
        if kept is None or kept[0] != os.getpid():
            _NOT_OURS.append(kept)  # a child must not even close what it inherited
            kept = self._mine.kept = (os.getpid(), connect(self._path, schema=SCHEMA["sqlite"]))
        return kept[1]


class PostgresAuditLog(_ChainedLog):
    """Entries in one table of a schema, for many machines that hold the same signing key."""

    def __init__(self, dsn: str, *, signer: HeadSigner) -> None:
        super().__init__(signer=signer)
        self._database = PostgresDatabase(dsn)

    def _reading(self) -> AbstractContextManager[Unit]:
        return self._database.opened(SCHEMA)

    def _alone(self) -> AbstractContextManager[Unit]:
        return self._database.alone(SCHEMA)


def _head(unit: Unit) -> tuple[int, str]:
    rows = unit.run("SELECT length, hash FROM audit_head")
    return (int(rows[0][0]), str(rows[0][1])) if rows else (0, GENESIS)


def _walk(unit: Unit, subject: str | None, *, after: int = 0, most: int | None = None) -> Iterator[dict[str, Any]]:
    names = (*_FIELDS, "hash")
    only, whose = ("AND subject = ?", [subject]) if subject is not None else ("", [])
    few, count = ("LIMIT ?", [most]) if most is not None else ("", [])
    sql = f"SELECT {', '.join(names)} FROM audit WHERE seq > ? {only} ORDER BY seq {few}"  # noqa: S608 - our own words
    return (dict(zip(names, row, strict=True)) for row in unit.run(sql, after, *whose, *count))
