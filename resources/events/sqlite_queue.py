"""Events in a SQLite file. An event is one row; what a group has been handed and not answered for is a delivery."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from platform_assets.errors import EventError
from platform_assets.specs.events import DeadLetter, Delivery, mentions
from resources.state import open_state, write_alone

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from platform_assets.specs.events import Event

MOST_ATTEMPTS = 5
KEPT_SECONDS = 30 * 86_400.0  # an event that nobody waits for; within it the same id is known again
_TIDY_EVERY = 256  # events
OUT, DEAD, AGAIN = "out", "dead", "again"
SCHEMA = """
CREATE TABLE IF NOT EXISTS events (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, queue TEXT NOT NULL, source TEXT NOT NULL, id TEXT NOT NULL, body BLOB NOT NULL,
    landed REAL NOT NULL, UNIQUE (queue, source, id)
);
CREATE INDEX IF NOT EXISTS events_by_queue ON events (queue, seq);
CREATE TABLE IF NOT EXISTS event_groups (queue TEXT, name TEXT, reached INTEGER NOT NULL, PRIMARY KEY (queue, name));
CREATE TABLE IF NOT EXISTS deliveries (
    queue TEXT, name TEXT, seq INTEGER REFERENCES events (seq), state TEXT NOT NULL, lease REAL NOT NULL, attempts INTEGER NOT NULL,
    why TEXT NOT NULL DEFAULT '', PRIMARY KEY (queue, name, seq)
);
"""
TOO_OFTEN = f"handed out {MOST_ATTEMPTS} times and never answered for"


def put_back(copy: Path, *, earlier: Path, queue: str) -> None:
    """Give a copy of the file one queue as an earlier copy has it."""
    with closing(sqlite3.connect(copy)) as rows:
        rows.execute("ATTACH ? AS earlier", (str(earlier),))
        with rows:
            for table in ("events", "event_groups", "deliveries"):
                rows.execute(f"DELETE FROM main.{table} WHERE queue = ?", (queue,))  # noqa: S608 - our own words
                rows.execute(f"INSERT INTO main.{table} SELECT * FROM earlier.{table} WHERE queue = ?", (queue,))  # noqa: S608


class SqliteEventQueue:
    """One queue of the file; the platform's EventQueue port."""

    def __init__(self, path: Path, name: str) -> None:
        self._path, self._name = path, name

    def publish(self, event: Event) -> bool:
        """Put an event in."""
        with self._alone() as rows:
            now = time.time()
            put = rows.execute(
                "INSERT OR IGNORE INTO events (queue, source, id, body, landed) VALUES (?, ?, ?, ?, ?)",
                (self._name, event.source, event.id, event.encode(), now),
            )
            if put.rowcount and (put.lastrowid or 0) % _TIDY_EVERY == 0:
                rows.execute(
                    "DELETE FROM events WHERE queue = ? AND landed < ? AND seq NOT IN (SELECT seq FROM deliveries WHERE queue = ?)"
                    " AND seq <= (SELECT COALESCE(MIN(reached), 0) FROM event_groups WHERE queue = ?)",
                    (self._name, now - KEPT_SECONDS, self._name, self._name),
                )
            return put.rowcount == 1

    def claim(self, group: str, *, most: int = 100, lease_seconds: float = 60.0) -> list[Delivery]:
        """Hand out what waits."""
        with self._alone() as rows:
            now, mine = time.time(), (self._name, group)
            rows.execute("INSERT OR IGNORE INTO event_groups VALUES (?, ?, 0)", mine)
            rows.execute(
                "UPDATE deliveries SET state = ?, why = ?, lease = ?"
                " WHERE queue = ? AND name = ? AND state = ? AND lease < ? AND attempts >= ?",
                (DEAD, TOO_OFTEN, now, *mine, OUT, now, MOST_ATTEMPTS),
            )
            late = rows.execute(
                "SELECT seq, body, attempts FROM deliveries JOIN events USING (seq) WHERE deliveries.queue = ? AND name = ?"
                " AND state IN (?, ?) AND lease < ? ORDER BY seq LIMIT ?",
                (*mine, OUT, AGAIN, now, most),
            ).fetchall()
            reached = rows.execute("SELECT reached FROM event_groups WHERE queue = ? AND name = ?", mine).fetchone()[0]
            fresh = rows.execute(
                "SELECT seq, body, 0 FROM events WHERE queue = ? AND seq > ? ORDER BY seq LIMIT ?", (self._name, reached, most - len(late))
            ).fetchall()
            for seq, _, attempts in (*late, *fresh):
                rows.execute(
                    "INSERT INTO deliveries (queue, name, seq, state, lease, attempts) VALUES (?, ?, ?, ?, ?, ?)"
                    " ON CONFLICT DO UPDATE SET state = excluded.state, lease = excluded.lease, attempts = excluded.attempts",
                    (*mine, seq, OUT, now + lease_seconds, attempts + 1),
                )
            if fresh:
                rows.execute("UPDATE event_groups SET reached = ? WHERE queue = ? AND name = ?", (fresh[-1][0], *mine))
            return [Delivery(str(seq), bytes(body), attempts + 1) for seq, body, attempts in (*late, *fresh)]

    def acknowledge(self, group: str, tokens: Sequence[str]) -> None:
        """Answer for deliveries."""
        with self._alone() as rows:
            rows.executemany(
                "DELETE FROM deliveries WHERE queue = ? AND name = ? AND seq = ? AND state = ?",
                [(self._name, group, token, OUT) for token in tokens],
            )

    def bury(self, group: str, token: str, why: str) -> None:
        """Put a delivery among the dead letters."""
        with self._alone() as rows:
            rows.execute(
                "UPDATE deliveries SET state = ?, why = ?, lease = ? WHERE queue = ? AND name = ? AND seq = ? AND state = ?",
                (DEAD, why, time.time(), self._name, group, token, OUT),
            )

    def dead(self, group: str) -> list[DeadLetter]:
        """List the dead letters."""
        with open_state(self._path, schema=SCHEMA) as rows:
            found = rows.execute(
                "SELECT seq, body, why, lease FROM deliveries JOIN events USING (seq) WHERE deliveries.queue = ? AND name = ? AND state = ?"
                " ORDER BY seq",
                (self._name, group, DEAD),
            )
            return [DeadLetter(str(seq), bytes(body), why, datetime.fromtimestamp(at, UTC)) for seq, body, why, at in found]

    def replay(self, group: str, token: str) -> None:
        """Hand a dead letter out again."""
        with self._alone() as rows:
            found = rows.execute(
                "UPDATE deliveries SET state = ?, lease = 0, attempts = 0, why = '' WHERE queue = ? AND name = ? AND seq = ? AND state = ?",
                (AGAIN, self._name, group, token, DEAD),
            )
            if found.rowcount != 1:
                raise EventError(f"{self._name} has no dead letter {token!r}")

    def waiting(self, group: str) -> int:
        """Count what is neither acknowledged nor buried."""
        with open_state(self._path, schema=SCHEMA) as rows:
            reached = rows.execute("SELECT reached FROM event_groups WHERE queue = ? AND name = ?", (self._name, group)).fetchone()
            fresh = rows.execute("SELECT COUNT(*) FROM events WHERE queue = ? AND seq > ?", (self._name, reached[0] if reached else 0))
            out = rows.execute(
                "SELECT COUNT(*) FROM deliveries WHERE queue = ? AND name = ? AND state IN (?, ?)", (self._name, group, OUT, AGAIN)
            )
            return int(fresh.fetchone()[0] + out.fetchone()[0])

    def erase(self, texts: Sequence[str]) -> int:
        """Remove events in which one of these texts stands, and their deliveries, their bytes overwritten."""
        with open_state(self._path, schema=SCHEMA) as rows:
            rows.execute("PRAGMA secure_delete=ON")
            with write_alone(rows):
                held = rows.execute("SELECT seq, body FROM events WHERE queue = ?", (self._name,)).fetchall()
                gone = [(seq,) for seq, body in held if mentions(bytes(body), texts)]
                rows.executemany("DELETE FROM deliveries WHERE seq = ?", gone)
                rows.executemany("DELETE FROM events WHERE seq = ?", gone)
            rows.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return len(gone)

    @contextmanager
    def _alone(self) -> Iterator[sqlite3.Connection]:
        with open_state(self._path, schema=SCHEMA) as rows, write_alone(rows):
            yield rows
