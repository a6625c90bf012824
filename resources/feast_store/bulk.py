"""Writes of the online file, in bulk and without Feast: a table a view, a row an entity, newest values only.

The layout is `platform_assets.stages.serving.online`'s. Readers are never blocked (write-ahead log), a killed write leaves what was there.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

from platform_assets.specs.record_json import to_json
from platform_assets.specs.records import ViewTable
from platform_assets.stages.features.schema import EVENT_TIMESTAMP
from platform_assets.stages.serving.online import DECLARED_TYPES, ENTITY_COLUMN, EVENT_COLUMN, OnlineReader, quote
from resources.feast_store.values import as_stored, newest_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    import pyarrow as pa

_PINS = "__materialised"  # view to the pin whose rows it holds, written in the same transaction as the rows


@contextmanager
def open_for_writing(path: Path) -> Iterator[sqlite3.Connection]:
    """Open the online file in one write transaction, committed at the end, rolled back on any error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(path, isolation_level=None, timeout=60)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute("BEGIN IMMEDIATE")
        connection.execute(f"CREATE TABLE IF NOT EXISTS {_PINS} (view TEXT PRIMARY KEY, pin TEXT NOT NULL)")
        try:
            yield connection
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")


def materialised_pin(connection: sqlite3.Connection, view: str) -> str | None:
    """Return the pin that a view's online values stand at, as JSON."""
    row = connection.execute(f"SELECT pin FROM {_PINS} WHERE view = ?", [view]).fetchone()  # noqa: S608 a constant
    return row[0] if row else None


def ensure_table(connection: sqlite3.Connection, view: str, *, kinds: Mapping[str, str]) -> None:
    """Create a view's table; one with other columns or types is begun anew, empty."""
    wanted = {ENTITY_COLUMN: "TEXT", EVENT_COLUMN: "INTEGER", **{name: DECLARED_TYPES[kind] for name, kind in kinds.items()}}
    present = {name: declared for _, name, declared, *_ in connection.execute(f"PRAGMA table_info({quote(view)})")}
    if present == wanted:
        return
    drop_table(connection, view)
    columns = [f"{quote(name)} {declared}" for name, declared in wanted.items()]
    columns[:2] = [f"{quote(ENTITY_COLUMN)} TEXT PRIMARY KEY", f"{quote(EVENT_COLUMN)} INTEGER NOT NULL"]
    connection.execute(f"CREATE TABLE {quote(view)} ({', '.join(columns)})")


def drop_table(connection: sqlite3.Connection, view: str) -> None:
    """Remove a view's online values."""
    connection.execute(f"DROP TABLE IF EXISTS {quote(view)}")
    connection.execute(f"DELETE FROM {_PINS} WHERE view = ?", [view])  # noqa: S608 a constant


def upsert(connection: sqlite3.Connection, view: str, *, features: Iterable[str], rows: Iterable[tuple[Any, ...]]) -> int:
    """Write rows (entity, event in microseconds, features); one that is older than what is there, or equal to it, is not written."""
    names = [quote(name) for name in features]
    entity, event = quote(ENTITY_COLUMN), quote(EVENT_COLUMN)
    updates = ", ".join(f"{name} = excluded.{name}" for name in [event, *names])
    differs = " OR ".join(f"excluded.{name} IS NOT present.{name}" for name in names) or "FALSE"
    before = connection.total_changes
    # Names are quoted identifiers of declared features; values are bound.
    connection.executemany(
        f"INSERT INTO {quote(view)} AS present ({', '.join([entity, event, *names])}) VALUES ({', '.join('?' * (len(names) + 2))}) "  # noqa: S608
        f"ON CONFLICT ({entity}) DO UPDATE SET {updates} "
        f"WHERE excluded.{event} > present.{event} OR (excluded.{event} = present.{event} AND ({differs}))",
        rows,
    )
    return connection.total_changes - before


def write_view(path: Path, *, view: ViewTable, rows: pa.Table) -> int:
    """Write the newest row of each entity; return how many entities changed. Rows that came late for their entity change nothing."""
    newest = newest_of(rows, view)
    columns = [
        newest[view.entity].to_pylist(),
        as_stored(newest[EVENT_TIMESTAMP], "date"),
        *(as_stored(newest[name], kind) for name, kind in view.kinds.items()),  # NaN, which SQLite stores as NULL
    ]
    with open_for_writing(path) as connection:
        ensure_table(connection, view.name, kinds=view.kinds)
        written = upsert(connection, view.name, features=view.kinds, rows=zip(*columns, strict=True))
        connection.execute(f"INSERT OR REPLACE INTO {_PINS} VALUES (?, ?)", [view.name, to_json(view.pin)])  # noqa: S608 a constant
    return written


def forget_entities(path: Path, view: str, entities: Sequence[str]) -> int:
    """Delete the rows of these entities, their bytes overwritten; return how many there were. A view that has no table yet has none."""
    if not path.exists() or not entities:
        return 0
    with closing(sqlite3.connect(path, isolation_level=None, timeout=60)) as connection:
        connection.execute("PRAGMA secure_delete=ON")
        if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = ?", [view]).fetchone():
            return 0
        before = connection.total_changes
        connection.executemany(f"DELETE FROM {quote(view)} WHERE {quote(ENTITY_COLUMN)} = ?", [(entity,) for entity in entities])  # noqa: S608 a quoted name
        gone = connection.total_changes - before
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # the log of writes held the rows, too
    return gone


class SqliteValues:
    """Newest values in one SQLite file: `OnlineValues` over the functions above."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def pin(self, view: str) -> str | None:
        """Return the pin that a view's values stand at."""
        with open_for_writing(self._path) as connection:
            return materialised_pin(connection, view)

    def ensure(self, view: str, *, kinds: Mapping[str, str]) -> None:
        """Make room for a view."""
        with open_for_writing(self._path) as connection:
            ensure_table(connection, view, kinds=kinds)

    def write_view(self, view: ViewTable, rows: pa.Table) -> int:
        """Write the newest row of each entity, and the pin, in one transaction."""
        return write_view(self._path, view=view, rows=rows)

    def upsert(self, view: str, *, kinds: Mapping[str, str], rows: Iterable[tuple[Any, ...]]) -> int:
        """Write rows."""
        with open_for_writing(self._path) as connection:
            ensure_table(connection, view, kinds=kinds)
            return upsert(connection, view, features=kinds, rows=rows)

    def held(self, view: str, entities: Sequence[str]) -> int:
        """Count those of these entities that have values."""
        reader = self.reader()
        try:
            return sum(row is not None for row in reader.read_many(view, entities))
        finally:
            reader.close()

    def forget(self, view: str, entities: Sequence[str]) -> int:
        """Delete the rows of these entities, their bytes overwritten."""
        return forget_entities(self._path, view, entities)

    def drop(self, view: str) -> None:
        """Remove a view's values; the file stays, other views may live in it."""
        with open_for_writing(self._path) as connection:
            drop_table(connection, view)

    def reader(self) -> OnlineReader:
        """Return what the inference server reads them with."""
        return OnlineReader(self._path)
