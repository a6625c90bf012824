"""Names that are good once: login links, OIDC states, sessions that were ended. On disk before it is answered: no restart forgets."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from resources.state import open_state

if TYPE_CHECKING:
    from pathlib import Path

_SCHEMA = "CREATE TABLE IF NOT EXISTS used (name TEXT PRIMARY KEY, until REAL NOT NULL) WITHOUT ROWID;"


class UsedNames:
    """Used names in SQLite and in memory; each is forgotten once nobody would take it any more."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        with open_state(path, schema=_SCHEMA) as state:
            self._known: dict[str, float] = dict(state.execute("SELECT name, until FROM used"))

    def use(self, name: str, *, until: float, now: float) -> bool:
        """Use a name up; return whether it was good still. `until`: when whatever bears it expires, seconds since 1970."""
        with self._lock:
            with open_state(self._path, schema=_SCHEMA) as state:
                state.execute("DELETE FROM used WHERE until < ?", (now,))
                fresh = state.execute("INSERT OR IGNORE INTO used VALUES (?, ?)", (name, until)).rowcount == 1
            self._known = {known: end for known, end in self._known.items() if end >= now} | {name: until}
            return fresh

    def __contains__(self, name: str) -> bool:
        """Whether it was used by this process, or before it started."""
        return name in self._known
