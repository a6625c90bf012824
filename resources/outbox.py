"""Notices on their way to people, in SQLite: told once each, again until somebody has acknowledged them, delivered by whoever has time.

Writing one costs a commit and waits for nobody; a notice that a killed process was delivering is delivered again, under the same id.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from resources.state import open_state, write_alone

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from resources.couriers import Courier, QuietHours

_SCHEMA = """
CREATE TABLE IF NOT EXISTS notices (
    id TEXT PRIMARY KEY, key TEXT NOT NULL, title TEXT NOT NULL, text TEXT NOT NULL, severity TEXT NOT NULL, at REAL NOT NULL,
    acknowledged_by TEXT, acknowledged_at REAL);
CREATE INDEX IF NOT EXISTS notices_key ON notices (key, at);
CREATE TABLE IF NOT EXISTS deliveries (
    notice TEXT NOT NULL, courier TEXT NOT NULL, attempts INTEGER NOT NULL, due REAL NOT NULL, done INTEGER NOT NULL,
    PRIMARY KEY (notice, courier));
CREATE INDEX IF NOT EXISTS deliveries_due ON deliveries (done, due);
"""
REMIND_AFTER = timedelta(days=1)
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 5.0, 3600.0
_MOST_ATTEMPTS = 40  # more than a day: then it is given up, and stands in the log
_AT_ONCE = 20


@dataclass(frozen=True)
class Notice:
    """One message to people. `id` stays the same over every attempt to deliver it; `at`: epoch seconds."""

    id: str
    key: str
    title: str
    text: str
    severity: str
    at: float


class Outbox:
    """Notices and their deliveries, in one file."""

    def __init__(self, path: Path, *, remind_after: timedelta = REMIND_AFTER) -> None:
        self._path, self._remind = path, remind_after.total_seconds()

    def put(self, title: str, text: str, *, severity: str, key: str, couriers: Sequence[str], now: float) -> bool:
        """Take a notice for these couriers; False where its key was told of late, or was acknowledged."""
        with open_state(self._path, schema=_SCHEMA) as state, write_alone(state):
            told = state.execute("SELECT at, acknowledged_at FROM notices WHERE key = ? ORDER BY at DESC LIMIT 1", (key,)).fetchone()
            if key and told and (told[1] is not None or told[0] > now - self._remind):
                return False
            number = secrets.token_hex(16)
            state.execute(
                "INSERT INTO notices (id, key, title, text, severity, at) VALUES (?, ?, ?, ?, ?, ?)",
                (number, key, title, text, severity, now),
            )
            state.executemany("INSERT INTO deliveries VALUES (?, ?, 0, ?, 0)", [(number, courier, now) for courier in couriers])
        return True

    def acknowledge(self, prefix: str, *, who: str, now: float) -> int:
        """Mark every notice whose key begins with this as known to somebody; return how many were not yet. Nobody is told of them again."""
        with open_state(self._path, schema=_SCHEMA) as state, write_alone(state):
            return state.execute(
                "UPDATE notices SET acknowledged_by = ?, acknowledged_at = ? WHERE substr(key, 1, ?) = ? AND acknowledged_at IS NULL",
                (who, now, len(prefix), prefix),
            ).rowcount

    def due(self, courier: str, *, now: float) -> list[Notice]:
        """Return what this courier is to deliver now, oldest first."""
        with open_state(self._path, schema=_SCHEMA) as state:
            rows = state.execute(
                "SELECT n.id, n.key, n.title, n.text, n.severity, n.at FROM deliveries d JOIN notices n ON n.id = d.notice"
                " WHERE d.courier = ? AND d.done = 0 AND d.due <= ? ORDER BY n.at LIMIT ?",
                (courier, now, _AT_ONCE),
            ).fetchall()
        return [Notice(*row) for row in rows]

    def delivered(self, notice: Notice, courier: str) -> None:
        """Write that a courier has done its part."""
        with open_state(self._path, schema=_SCHEMA) as state, write_alone(state):
            state.execute("UPDATE deliveries SET done = 1 WHERE notice = ? AND courier = ?", (notice.id, courier))

    def failed(self, notice: Notice, courier: str, *, now: float) -> bool:
        """Write that an attempt failed, and when the next is due, each time after twice as long; False where it was the last."""
        with open_state(self._path, schema=_SCHEMA) as state, write_alone(state):
            (attempts,) = state.execute("SELECT attempts FROM deliveries WHERE notice = ? AND courier = ?", (notice.id, courier)).fetchone()
            pause = min(_LONGEST_PAUSE_SECONDS, _FIRST_PAUSE_SECONDS * 2**attempts)
            last = attempts + 1 >= _MOST_ATTEMPTS
            state.execute(
                "UPDATE deliveries SET attempts = ?, due = ?, done = ? WHERE notice = ? AND courier = ?",
                (attempts + 1, now + pause, int(last), notice.id, courier),
            )
        return not last


def deliver(outbox: Outbox, couriers: Sequence[Courier], *, quiet: QuietHours | None, now: float) -> list[str]:
    """Let each courier deliver what is due; return one sentence for each that could not, without any secret.

    A courier stops at its first failure: a dead receiver costs one timeout. In quiet hours only errors go out; the rest waits.
    """
    sleeping = quiet is not None and quiet.hold(datetime.fromtimestamp(now, UTC))
    said = []
    for courier in couriers:
        for notice in outbox.due(courier.name, now=now):
            if sleeping and notice.severity != "error":
                continue
            problem = courier.deliver(notice)
            if problem is None:
                outbox.delivered(notice, courier.name)
                continue
            more = "it is tried again" if outbox.failed(notice, courier.name, now=now) else "it is given up"
            said.append(f"{courier.name} did not take {notice.title!r} ({problem}); {more}")
            break
    return said
