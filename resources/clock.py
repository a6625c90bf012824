"""The data's clock, kept in a database. What a time means to a window or a cool-down is decided elsewhere."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from resources.databases import SqliteDatabase

if TYPE_CHECKING:
    from pathlib import Path

    from resources.databases import Database, Dialect

_TABLE = "CREATE TABLE IF NOT EXISTS clock (stream TEXT{order} PRIMARY KEY, stands_at TEXT{order} NOT NULL)"
# Texts are compared byte by byte, whatever the database's language.
_SCHEMA: dict[Dialect, str] = {
    "sqlite": _TABLE.format(order="") + " WITHOUT ROWID",
    "postgresql": _TABLE.format(order=' COLLATE "C"'),
}


def to_naive_utc(at: datetime) -> datetime:
    """Bring a time to the platform's convention: UTC, without zone; a naive one is taken as UTC."""
    return at.astimezone(UTC).replace(tzinfo=None) if at.tzinfo is not None else at


class SqlClock:
    """A clock a stream; a stream that was never moved shows the wall clock."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def now(self, stream: str) -> datetime:
        """Return what time it is for this stream, naive UTC."""
        with self._database.opened(_SCHEMA) as unit:
            rows = unit.run("SELECT stands_at FROM clock WHERE stream = ?", stream)
        return datetime.fromisoformat(rows[0][0]) if rows else to_naive_utc(datetime.now(UTC))

    def advance(self, stream: str, to: datetime) -> datetime:
        """Move this stream's clock forward, never back; return where it stands."""
        # One width of text, microseconds always written, so that the order of texts is the order of times.
        text = to_naive_utc(to).isoformat(timespec="microseconds")
        with self._database.alone(_SCHEMA) as unit:
            unit.run("INSERT INTO clock VALUES (?, ?) ON CONFLICT (stream) DO NOTHING", stream, text)
            unit.run("UPDATE clock SET stands_at = ? WHERE stream = ? AND stands_at < ?", text, stream, text)
            ((stands_at,),) = unit.run("SELECT stands_at FROM clock WHERE stream = ?", stream)
        return datetime.fromisoformat(stands_at)


class SqliteClock(SqlClock):
    """In the state file of one machine."""

    def __init__(self, path: Path) -> None:
        super().__init__(SqliteDatabase(path))
