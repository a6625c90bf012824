"""Dagster's SQLite storages with engines and connections that stay.

They make an engine for every statement and a connection for each: all statements are compiled anew, the schema is read anew, and the last
connection's end writes the log back into its file. That was half of what monitoring a model cost (decision 89). Before most reads they ask,
too, whether the file's schema has grown a column, a table or an index yet, a statement each: it keeps what it has, so a yes is remembered.

A run's own log, a file a run, is not brought to the disk line by line: a killed process loses none of it, a power cut may lose its last
seconds. What is read across runs (materialisations, checks, states of runs, cursors) stands in other files, which are (decision 94).
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from functools import lru_cache, partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dagster._core.storage.event_log.sqlite import sqlite_event_log
from dagster._core.storage.event_log.sqlite.sqlite_event_log import INDEX_SHARD_NAME, SqliteEventLogStorage
from dagster._core.storage.runs.sqlite import sqlite_run_storage
from dagster._core.storage.schedules.sqlite import sqlite_schedule_storage
from sqlalchemy import create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.pool import NullPool, QueuePool

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.engine import Engine

_MOST = 16  # files: one a run, beside three that all share
_STORAGES = (sqlite_event_log, sqlite_run_storage, sqlite_schedule_storage)


class _StayingPool(QueuePool):
    """A pool that `Engine.dispose` leaves as it is: Dagster calls that after each statement."""

    def dispose(self) -> None:
        """Close nothing."""

    def recreate(self) -> _StayingPool:
        """Go on with this pool."""
        return self

    def close(self) -> None:
        """Close what nobody uses now; what is in use is closed when it is given back."""
        super().dispose()


class Engines:
    """The newest engines of this process, by file. A file that was removed or replaced is another one; a fork begins with none."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, Engine] = OrderedDict()
        self._inherited: list[OrderedDict[str, Engine]] = []
        self._lock = threading.Lock()
        os.register_at_fork(after_in_child=self._forget)

    def take(self, url: str, *, synced: Callable[[Path], bool] | None = None, **options: Any) -> Engine:
        """Return the engine of this file; in place of `sqlalchemy.create_engine`. One that is not made yet is not kept.

        `synced`: whether what is committed to a file is to be on the disk before anything goes on.
        """
        path = _path_of(url)
        try:
            file = Path(path).stat() if path and options.get("poolclass") is NullPool else None
        except FileNotFoundError:
            file = None
        if file is None:
            return create_engine(url, **options)
        name = f"{url} {file.st_dev} {file.st_ino} {options.get('connect_args')}"
        with self._lock:
            engine = self._kept.pop(name, None)
            if engine is None:
                engine = create_engine(url, **{**options, "poolclass": _StayingPool}, pool_size=2, max_overflow=-1)
                if synced is not None and not synced(Path(str(path))):
                    event.listen(engine, "connect", _sync_less)
            self._kept[name] = engine
            if len(self._kept) > _MOST:
                _, oldest = self._kept.popitem(last=False)
                oldest.pool.close()  # type: ignore[attr-defined]
        return engine

    def _forget(self) -> None:
        """Leave the parent's connections alone: even to close one in a child is not SQLite's way, so they are held on to."""
        self._inherited.append(self._kept)
        self._kept, self._lock = OrderedDict(), threading.Lock()


@lru_cache(maxsize=256)
def _path_of(url: str) -> str | None:
    return make_url(url).database


def _sync_less(connection: Any, _: object) -> None:
    """With a write-ahead log the file stays whole all the same: a power cut takes the last commits, in order."""
    connection.execute("PRAGMA synchronous = NORMAL")


def _is_shared(file: Path) -> bool:
    """Whether a file of the event log is that of all runs, not one run's own."""
    return file.stem == INDEX_SHARD_NAME


_ENGINES = Engines()


def _asked_once(question: Callable[..., bool]) -> Callable[..., bool]:
    """Ask of each storage until the answer is yes."""

    @wraps(question)
    def ask(storage: SqliteEventLogStorage, *about: Any) -> bool:
        known = storage.__dict__.setdefault("_falaj_known", set[tuple[str, str]]())
        what = (question.__name__, about[-1])  # a connection may stand before what is asked about
        if what not in known:
            if not question(storage, *about):
                return False
            known.add(what)
        return True

    return ask


_QUESTIONS = ("has_table", "has_secondary_index", "has_asset_key_col", "_has_asset_key_col_on_connection")
_ASKED_ONCE = {name: _asked_once(getattr(SqliteEventLogStorage, name)) for name in _QUESTIONS}


def keep_engines() -> None:
    """Have this process's storages take kept engines; once or more often is the same."""
    for storage in _STORAGES:
        storage.create_engine = _ENGINES.take  # type: ignore[attr-defined]
    sqlite_event_log.create_engine = partial(_ENGINES.take, synced=_is_shared)
    for name, ask in _ASKED_ONCE.items():
        setattr(SqliteEventLogStorage, name, ask)
