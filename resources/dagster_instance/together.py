"""Dagster's events that come together, in one transaction a file, where its SQLite storage takes one or more for each.

A run of many steps begins with an event for each asset and check that it plans to make: 175 for 25 models, 500 transactions. Dagster hands
them over as a batch where it is asked to, and its storage then takes the batch apart. Batches are whole before anything else is said of
their run, so that a process that is killed loses nothing that it had said.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from dagster._core.storage.event_log.sqlite import sqlite_event_log
from dagster._core.storage.event_log.sqlite.sqlite_event_log import INDEX_SHARD_NAME, SqliteEventLogStorage
from dagster._core.storage.sqlite import SQLITE_BUSY_TIMEOUT_SECONDS
from sqlalchemy.pool import NullPool

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

    from dagster._core.events.log import EventLogEntry
    from sqlalchemy.engine import Connection


class _Within(SqliteEventLogStorage):
    """A storage that writes into transactions which are open already: that of a run's own log, and that of what all runs share."""

    def __init__(self, storage: SqliteEventLogStorage, *, log: Connection, shared: Connection) -> None:
        self.__dict__.update(storage.__dict__)
        self._log, self._shared = log, shared

    def run_connection(self, run_id: str | None = None) -> AbstractContextManager[Connection]:
        """Return the transaction of the one run whose events come."""
        del run_id
        return nullcontext(self._log)

    def index_connection(self) -> AbstractContextManager[Connection]:
        """Return the shared transaction."""
        return nullcontext(self._shared)


def _store_event_batch(storage: SqliteEventLogStorage, events: Sequence[EventLogEntry]) -> None:
    """Store all or none; a run's own log is closed first, since whoever tries again may say there twice what is said once elsewhere."""
    runs = {event.run_id for event in events}
    if len(runs) != 1:
        for event in events:
            storage.store_event(event)
        return
    options: dict[str, Any] = {"poolclass": NullPool, "connect_args": {"timeout": SQLITE_BUSY_TIMEOUT_SECONDS}}
    engine = sqlite_event_log.create_engine(storage.conn_string_for_shard(INDEX_SHARD_NAME), **options)
    with engine.begin() as shared, storage.run_connection(runs.pop()) as log:
        within = _Within(storage, log=log, shared=shared)
        for event in events:
            within.store_event(event)


def write_together() -> None:
    """Have this process's storages write batches so; once or more often is the same. `STEADY` has Dagster hand them over."""
    SqliteEventLogStorage.store_event_batch = _store_event_batch  # type: ignore[assignment, method-assign]
