"""Online features as the inference server reads them: one SQLite file, a table a view, a row an entity. In Redis: online_redis.py.

The layout is fixed here, because the server needs neither Feast nor any data library; whoever writes the file (behind Feast's interface)
imports these names. Nothing here writes.
"""

from __future__ import annotations

import sqlite3
from abc import ABC, abstractmethod
from array import array
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

FILE_NAME = "online.sqlite"
ENTITY_COLUMN = "__entity"  # text, primary key
EVENT_COLUMN = "__event_us"  # integer microseconds since 1970-01-01, of the row that gave the values
MICROSECONDS_A_DAY = 86_400_000_000
# Declared type of a feature's column, by kind of feature: what is stored under it follows.
DECLARED_TYPES = {
    "numeric": "REAL",
    "category": "TEXT",
    "text": "TEXT",
    "date": "INTEGER",
    "image": "BLOB",
}  # microseconds; float32 in the machine's byte order

OnlineValue = float | str | tuple[float, ...] | None


class NewestValues(ABC):
    """Reads newest feature values by entity, so many at once as its store takes."""

    entities_a_call: int

    def read(self, view: str, entity_value: str) -> dict[str, OnlineValue] | None:
        """Newest values of one entity of a view, by feature name; None where it is unknown."""
        return self.read_many(view, [entity_value])[0]

    def read_many(self, view: str, entity_values: Sequence[str]) -> list[dict[str, OnlineValue] | None]:
        """Newest values of many entities, in the order asked, repeats included; None where one is unknown."""
        return [row and row[1] for row in self.read_stamped(view, entity_values)]

    def read_stamped(self, view: str, entity_values: Sequence[str]) -> list[tuple[int, dict[str, OnlineValue]] | None]:
        """Read as `read_many` does, each row with its event time in microseconds since 1970-01-01."""
        found: dict[str, tuple[int, dict[str, OnlineValue]]] = {}
        wanted = list(dict.fromkeys(entity_values))
        for start in range(0, len(wanted), self.entities_a_call):
            found.update(self._read_chunk(view, wanted[start : start + self.entities_a_call]))
        return [found.get(value) for value in entity_values]

    @abstractmethod
    def _read_chunk(self, view: str, wanted: list[str]) -> dict[str, tuple[int, dict[str, OnlineValue]]]:
        """Newest rows of the entities that are known."""

    @abstractmethod
    def close(self) -> None:
        """Close what is kept open; the next read opens it anew."""


def quote(identifier: str) -> str:
    """Quote a table or column name for SQLite."""
    return '"' + identifier.replace('"', '""') + '"'


def _as_model_takes_it(value: float | str | bytes | None, declared: str) -> OnlineValue:
    if value is None:
        return None
    if declared == "INTEGER":
        return float(value) / MICROSECONDS_A_DAY
    return tuple(array("f", value)) if isinstance(value, bytes) else value


class OnlineReader(NewestValues):
    """Reads newest feature values by entity, read-only, over one cached connection.

    Values are as a model takes them: numbers float, categories string, dates float days since 1970-01-01, images a tuple of floats; None is
    missing.
    A file, view or entity that is not there (yet) gives None: the caller serves with missing values.
    """

    entities_a_call = 500  # SQLite's oldest limit on variables of a statement is 999

    def __init__(self, path: Path) -> None:
        """Open nothing yet: the file may appear later."""
        self._path = path
        self._connection: sqlite3.Connection | None = None

    def close(self) -> None:
        """Close the cached connection; the next read opens a new one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _read_chunk(self, view: str, wanted: list[str]) -> dict[str, tuple[int, dict[str, OnlineValue]]]:
        connection = self._connect()
        if connection is None:
            return {}
        # Types and rows in one read transaction: a writer may replace the table between two statements.
        connection.execute("BEGIN")
        try:
            declared = {name: kind for _, name, kind, *_ in connection.execute(f"PRAGMA table_info({quote(view)})")}
            if not declared:
                return {}
            names = list(declared)[2:]
            columns = ", ".join(quote(name) for name in (ENTITY_COLUMN, EVENT_COLUMN, *names))
            marks = ", ".join("?" * len(wanted))
            # Names are the table's own and quoted; values are bound.
            rows = connection.execute(f"SELECT {columns} FROM {quote(view)} WHERE {ENTITY_COLUMN} IN ({marks})", wanted)  # noqa: S608
            kinds = [declared[name] for name in names]
            return {
                entity: (event, {n: _as_model_takes_it(v, k) for n, v, k in zip(names, values, kinds, strict=True)})
                for entity, event, *values in rows
            }
        finally:
            connection.execute("COMMIT")

    def _connect(self) -> sqlite3.Connection | None:
        if self._connection is None and self._path.exists():
            address = f"{self._path.absolute().as_uri()}?mode=ro"
            self._connection = sqlite3.connect(address, uri=True, isolation_level=None, check_same_thread=False)
        return self._connection
