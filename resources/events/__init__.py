"""Queues of events: SQLite on a laptop, Redis Streams for a team, one contract."""

from __future__ import annotations

from typing import TYPE_CHECKING

from platform_assets.errors import EventError

if TYPE_CHECKING:
    from pathlib import Path

    from platform_assets.ports import EventQueue

INBOX, OUTBOX = "inbox", "outbox"
GROUP = "falaj"  # this platform, among the consumers of the inbox


def open_queue(name: str, *, url: str | None, path: Path) -> EventQueue:
    """Open a queue: in the SQLite file, or in Redis where a URL is set. Nothing is connected yet. Raises EventError for another scheme."""
    if not url:
        from resources.events.sqlite_queue import SqliteEventQueue

        return SqliteEventQueue(path, name)
    scheme = url.split("://", 1)[0] if "://" in url else ""
    if scheme in ("redis", "rediss", "unix"):
        from resources.events.redis_queue import RedisEventQueue

        return RedisEventQueue(url, name)
    raise EventError(
        f"FALAJ_EVENTS is of scheme {scheme!r}; right would be redis://HOST:PORT/DB, rediss:// with TLS, unix://PATH, or nothing for SQLite"
    )
