"""Seconds and CPU of every step, in SQLite. What they cost and who may spend them is decided elsewhere."""

from __future__ import annotations

import resource
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from resources.state import open_state

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_SCHEMA = """
CREATE TABLE IF NOT EXISTS ledger (
    id INTEGER PRIMARY KEY, at REAL NOT NULL, model TEXT NOT NULL, stage TEXT NOT NULL, run_id TEXT NOT NULL,
    wall_seconds REAL NOT NULL, cpu_seconds REAL NOT NULL);
"""


def cpu_seconds() -> float:
    """User and system CPU of this process and of its children that have ended (getrusage(2))."""
    usages = (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


class SqliteLedger:
    """One row a measured step."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @contextmanager
    def measure(self, *, model: str, stage: str, run_id: str) -> Iterator[None]:
        """Measure what happens inside, children included, and write one row, also when it fails: it was spent all the same.

        Other threads of this process are counted too; steps that run at once in one process each show the sum.
        """
        wall, cpu = time.perf_counter(), cpu_seconds()
        try:
            yield
        finally:
            row = (time.time(), model, stage, run_id, time.perf_counter() - wall, cpu_seconds() - cpu)
            with open_state(self._path, schema=_SCHEMA) as state:
                state.execute("INSERT INTO ledger (at, model, stage, run_id, wall_seconds, cpu_seconds) VALUES (?, ?, ?, ?, ?, ?)", row)

    def totals(self, *, since: float = 0.0) -> list[dict[str, Any]]:
        """Return rows {model, stage, runs, wall_seconds, cpu_seconds} of steps that ended at or after `since` (epoch seconds)."""
        names = ("model", "stage", "runs", "wall_seconds", "cpu_seconds")
        with open_state(self._path, schema=_SCHEMA) as state:
            rows = state.execute(
                "SELECT model, stage, count(*), sum(wall_seconds), sum(cpu_seconds) FROM ledger "
                "WHERE at >= ? GROUP BY model, stage ORDER BY model, min(id)",
                (since,),
            ).fetchall()
        return [dict(zip(names, row, strict=True)) for row in rows]
