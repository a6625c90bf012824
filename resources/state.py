"""One SQLite file for clock, ledger and audit log: how it is opened. What stands in it belongs to the classes that use it.

Opening costs several statements (tables are declared anew, and who closes last writes the log back into the file), so a thread that comes
again and again keeps a connection (`keep_state`). Not for what holds personal values: a row that was erased would stand in the log until
everybody has closed.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BUSY_SECONDS = 30.0


@contextmanager
def open_state(path: Path, *, schema: str, durable: bool = True) -> Iterator[sqlite3.Connection]:
    """Open the state file, with the caller's tables in it, for one unit of work.

    A connection a use: safe across threads and forks, and nothing is held when the process is killed. Writers queue for
    up to BUSY_SECONDS; each commit is on disk before it is answered, unless what is written means nothing after a restart of the machine.
    """
    connection = connect(path, schema=schema, durable=durable)
    try:
        yield connection
    finally:
        connection.close()


@contextmanager
def keep_state(path: Path, *, schema: str) -> Iterator[sqlite3.Connection]:
    """Open the state file for one unit of work, on this thread's connection of before where that is still to this file.

    A unit within a unit has one of its own. After an error none is kept.
    """
    kept = _KEPT.take(path, schema) or _Connection(path, schema)
    try:
        yield kept.connection
    except BaseException:
        kept.connection.close()
        raise
    _KEPT.put(kept)


class _Connection:
    """An open connection, and which file it is to: one that was removed or replaced is another one."""

    def __init__(self, path: Path, schema: str) -> None:
        self.name = (path, schema)
        before = _identity(path)
        self.connection = connect(path, schema=schema)
        self._file = _identity(path)
        self._known = before in (None, self._file)  # else it was replaced meanwhile, and which one is open cannot be told

    def is_current(self) -> bool:
        """Whether its file is the one that the path names now."""
        return self._known and self._file == _identity(self.name[0])


class _Kept(threading.local):
    """Connections of one thread that nobody is at work with."""

    def __init__(self) -> None:
        self._free: dict[tuple[Path, str], _Connection] = {}

    def take(self, path: Path, schema: str) -> _Connection | None:
        """Return one and keep it no more, so that a unit within a unit finds none."""
        found = self._free.pop((path, schema), None)
        if found is not None and not found.is_current():
            found.connection.close()
            return None
        return found

    def put(self, kept: _Connection) -> None:
        """Keep it in the place of one that was put there meanwhile."""
        before = self._free.pop(kept.name, None)
        if before is not None:
            before.connection.close()
        self._free[kept.name] = kept

    def leave(self) -> None:
        """Begin a fork with none. What the parent has is not closed here: its locks are the parent's."""
        _LEFT.append(self._free)
        self._free = {}


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


_KEPT = _Kept()
_LEFT: list[object] = []
os.register_at_fork(after_in_child=_KEPT.leave)


def connect(path: Path, *, schema: str, durable: bool = True) -> sqlite3.Connection:
    """Open the state file for one thread of one process, which closes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)
    try:
        _use_wal(connection)
        connection.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
        connection.executescript(schema)
    except BaseException:
        connection.close()
        raise
    return connection


@contextmanager
def write_alone(connection: sqlite3.Connection) -> Iterator[None]:
    """Hold the write lock from the first read to the commit, so that writers follow one another."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def _use_wal(connection: sqlite3.Connection) -> None:
    # SQLite does not apply the busy timeout to the change of journal mode: two first openers meet here once in a file's life.
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            return
