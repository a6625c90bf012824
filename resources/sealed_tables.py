"""A `TableStore` whose personal columns lie sealed: values are encrypted on their way in and decrypted on their way out, nowhere else.

What is declared personal in a dataset is sealed in its raw tables (ingested, validated). Behind `protect` there is nothing left to seal:
what is quarantined is protected as well. Values that were written before they were sealed are read as they are.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from platform_assets import keys
from platform_assets.sealing.values import PREFIX
from platform_assets.stages.datasets.columns import ARROW_TYPES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from platform_assets.ports import TableStore
    from platform_assets.sealing.values import ValueCipher
    from platform_assets.specs.dataset import Column, DatasetSpec
    from platform_assets.specs.records import TablePin
    from platform_assets.specs.subjects import Marks
    from resources.column_keys import ColumnKey

RAW = ("ingested", "validated")


def sealed_columns(dataset: DatasetSpec) -> list[str]:
    """Return the columns of a dataset that lie sealed in its raw tables: personal ones that are no pictures."""
    return [name for name, column in dataset.columns.items() if column.personal is not None and column.type != "image"]


class SealedTables:
    """The port over another store."""

    def __init__(self, tables: TableStore, *, datasets: Mapping[str, DatasetSpec], key: ColumnKey) -> None:
        self._tables, self._key = tables, key
        self._sealed = {
            keys.table_name(keys.dataset_key(name, state)): (name, {one: dataset.columns[one] for one in sealed_columns(dataset)})
            for name, dataset in datasets.items()
            for state in RAW
        }

    def merge(self, table: str, rows: pa.Table, *, key: str) -> tuple[int, int]:
        """Insert new keys, replace changed rows; a sealed key is compared sealed."""
        return self._tables.merge(table, self._seal(table, rows), key=key)

    def append(self, table: str, rows: pa.Table, *, key: str) -> int:
        """Append rows whose key is not there yet."""
        return self._tables.append(table, self._seal(table, rows), key=key)

    def replace(self, table: str, rows: pa.Table) -> TablePin:
        """Make these rows the table's next version; the same values are the same sealed, so that equal content makes no commit."""
        return self._tables.replace(table, self._seal(table, rows))

    def read(self, pin: TablePin, *, columns: Sequence[str] | None = None) -> pa.Table:
        """Read exactly this version, in the open."""
        return self._open(pin.table, self._tables.read(pin, columns=columns))

    def pin(self, table: str) -> TablePin | None:
        """Return the newest version; its content hash is of the sealed rows."""
        return self._tables.pin(table)

    def location(self, table: str) -> str:
        """Return where the sealed table lies."""
        return self._tables.location(table)

    def tables(self) -> list[str]:
        """Return the names of all tables."""
        return self._tables.tables()

    def search(self, table: str, marks: Marks, *, columns: Sequence[str]) -> pa.Table:
        """Look for values sealed and as they are."""
        return self._open(table, self._tables.search(table, self._sealed_too(table, marks), columns=columns), typed=False)

    def erase(self, table: str, marks: Marks) -> int:
        """Erase by values sealed and as they are."""
        return self._tables.erase(table, self._sealed_too(table, marks))

    def _seal(self, table: str, rows: pa.Table) -> pa.Table:
        def seal(value: str, context: bytes) -> str:
            return self._cipher.seal(value, context=context)

        for name, context in self._columns(table, rows):
            rows = rows.set_column(rows.column_names.index(name), name, _each(rows[name].cast(pa.string()), seal, context))
        return rows

    def _open(self, table: str, rows: pa.Table, *, typed: bool = True) -> pa.Table:
        def unseal(value: str, context: bytes) -> str:
            return self._cipher.open(value, context=context) if value.startswith(PREFIX) else value

        for name, context in self._columns(table, rows):
            if pa.types.is_string(rows.schema.field(name).type):
                found = _each(rows[name], unseal, context)
                wanted = ARROW_TYPES[self._declared(table)[name].type] if typed else pa.string()
                rows = rows.set_column(rows.column_names.index(name), name, found.cast(wanted))
        return rows

    def _sealed_too(self, table: str, marks: Marks) -> Marks:
        name, columns = self._sealed.get(table, ("", {}))
        more = {
            column: (*values, *(self._cipher.seal(value, context=_context(name, column)) for value in values))
            for column, values in marks.equal.items()
            if column in columns
        }
        return replace(marks, equal={**marks.equal, **more})

    def _columns(self, table: str, rows: pa.Table) -> list[tuple[str, bytes]]:
        name, columns = self._sealed.get(table, ("", {}))
        return [(column, _context(name, column)) for column in columns if column in rows.column_names]

    def _declared(self, table: str) -> Mapping[str, Column]:
        return self._sealed[table][1]

    @cached_property
    def _cipher(self) -> ValueCipher:
        return self._key.cipher()


def _context(dataset: str, column: str) -> bytes:
    return f"{dataset}/{column}".encode()


def _each(values: pa.ChunkedArray, change: Callable[[str, bytes], str], context: bytes) -> pa.ChunkedArray:
    """Change every different value once; missing ones stay missing."""
    coded = values.combine_chunks().dictionary_encode()
    changed = pa.array([change(value, context) for value in coded.dictionary.to_pylist()], pa.string())
    return pa.chunked_array([pc.take(changed, coded.indices)])
