"""The data's clock, kept in SQLite. What a time means to a window or a cool-down is decided elsewhere."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from resources.state import open_state

if TYPE_CHECKING:
    from pathlib import Path

_SCHEMA = "CREATE TABLE IF NOT EXISTS clock (stream TEXT PRIMARY KEY, stands_at TEXT NOT NULL) WITHOUT ROWID;"


def to_naive_utc(at: datetime) -> datetime:
    """Bring a time to the platform's convention: UTC, without zone; a naive one is taken as UTC."""
    return at.astimezone(UTC).replace(tzinfo=None) if at.tzinfo is not None else at


class SqliteClock:
    """A clock a stream; a stream that was never moved shows the wall clock."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def now(self, stream: str) -> datetime:
        """Return what time it is for this stream, naive UTC."""
        with open_state(self._path, schema=_SCHEMA) as state:
            row = state.execute("SELECT stands_at FROM clock WHERE stream = ?", (stream,)).fetchone()
        return datetime.fromisoformat(row[0]) if row else to_naive_utc(datetime.now(UTC))

    def advance(self, stream: str, to: datetime) -> datetime:
        """Move this stream's clock forward, never back; return where it stands."""
        # One width of text, microseconds always written, so that the order of texts is the order of times.
        text = to_naive_utc(to).isoformat(timespec="microseconds")
        with open_state(self._path, schema=_SCHEMA) as state:
            row = state.execute(
                "INSERT INTO clock VALUES (?, ?) "
                "ON CONFLICT(stream) DO UPDATE SET stands_at = max(stands_at, excluded.stands_at) RETURNING stands_at",
                (stream, text),
            ).fetchone()
        return datetime.fromisoformat(row[0])
