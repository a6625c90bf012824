"""One SQLite file for clock, ledger and audit log: how it is opened. What stands in it belongs to the classes that use it."""

from __future__ import annotations

import sqlite3
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
