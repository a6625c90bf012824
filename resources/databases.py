"""Where small state of the platform lies: a unit of work on an SQLite file or a PostgreSQL schema. What stands in it, its users know."""

from __future__ import annotations

from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any, Literal, Protocol

from platform_assets.errors import OutageError, StateError
from platform_assets.stages.training.heartbeat import connect_postgresql
from resources.outages import is_outage
from resources.state import open_state, write_alone

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator, Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path

Dialect = Literal["sqlite", "postgresql"]


class Unit(Protocol):
    """An open transaction."""

    def run(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """Run one statement (`?` placeholders); return its rows."""


class Database(Protocol):
    """Makes units of work, the caller's tables in place."""

    def is_made(self) -> bool:
        """Whether anything can stand in it yet."""

    def opened(self, schema: Mapping[Dialect, str]) -> AbstractContextManager[Unit]:
        """Read one state of the database, or write what stands alone."""

    def alone(self, schema: Mapping[Dialect, str]) -> AbstractContextManager[Unit]:
        """Write with nobody else between the first read and the commit."""


class SqliteUnit:
    """Statements on an open SQLite file."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def run(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """Run one statement; return its rows."""
        return self._connection.execute(sql, values).fetchall()


class SqliteDatabase:
    """One file of one machine."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def is_made(self) -> bool:
        """Whether the file is there: who only looks does not make it."""
        return self._path.exists()

    @contextmanager
    def opened(self, schema: Mapping[Dialect, str]) -> Iterator[Unit]:
        """Open the file; each statement is on disk before it is answered."""
        with open_state(self._path, schema=schema["sqlite"]) as connection:
            yield SqliteUnit(connection)

    @contextmanager
    def alone(self, schema: Mapping[Dialect, str]) -> Iterator[Unit]:
        """Open the file with its write lock held."""
        with open_state(self._path, schema=schema["sqlite"]) as connection, write_alone(connection):
            yield SqliteUnit(connection)


class PostgresUnit:
    """Statements in an open transaction of PostgreSQL."""

    def __init__(self, cursor: Any) -> None:
        self._cursor = cursor

    def run(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """Run one statement; return its rows, binary values as bytes."""
        self._cursor.execute(sql.replace("?", "%s"), values)
        rows = self._cursor.fetchall() if self._cursor.description else []
        return [tuple(bytes(value) if isinstance(value, memoryview) else value for value in row) for row in rows]


class PostgresDatabase:
    """One database of many machines; a connection a use, so that nothing is held when a process is killed or forks."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._prepared: set[str] = set()

    def is_made(self) -> bool:
        """Say yes: it was made by whoever runs the server."""
        return True

    @contextmanager
    def opened(self, schema: Mapping[Dialect, str]) -> Iterator[Unit]:
        """Open a transaction that sees one state of the database."""
        with self._transaction(schema["postgresql"], "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ") as unit:
            yield unit

    @contextmanager
    def alone(self, schema: Mapping[Dialect, str]) -> Iterator[Unit]:
        """Open a transaction that follows every other such one."""
        with self._transaction(schema["postgresql"], "SELECT pg_advisory_xact_lock(hashtextextended('falaj state', 1))") as unit:
            yield unit

    @contextmanager
    def _transaction(self, schema: str, begin: str) -> Iterator[Unit]:
        import psycopg2

        try:
            with closing(connect_postgresql(self._dsn)) as connection:
                self._prepare(connection, schema)
                with connection, connection.cursor() as cursor:
                    cursor.execute(begin)
                    yield PostgresUnit(cursor)
        except psycopg2.Error as error:
            kind = OutageError if is_outage(error) else StateError
            raise kind(f"PostgreSQL at {place_of(self._dsn)} could not be used: {' '.join(str(error).split())}.") from error

    def _prepare(self, connection: Any, schema: str) -> None:
        # CREATE TABLE IF NOT EXISTS is no protection against another's at the same moment: PostgreSQL then raises UniqueViolation.
        if schema not in self._prepared:
            with connection, connection.cursor() as cursor:
                cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended('falaj state schema', 1))")
                cursor.execute(schema)
            self._prepared.add(schema)


def place_of(dsn: str) -> str:
    """Return host and database of a DSN, without user and password."""
    return dsn.rpartition("@")[2].partition("?")[0]
