"""The `TableStore` port in memory: for tests, and for trying a pipeline without a disk."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from platform_assets.errors import DataError
from platform_assets.specs.records import TablePin
from platform_assets.stages.datasets.fingerprints import content_hash, first_of_each, last_of_each, row_hashes

if TYPE_CHECKING:
    from collections.abc import Sequence


class MemoryTableStore:
    """Every version of every table, in this process only."""

    def __init__(self) -> None:
        self._versions: dict[str, list[tuple[pa.Table, pa.Array]]] = {}
        self._lock = threading.Lock()

    def location(self, table: str) -> str:
        """Return a URL that names the table; nothing can be opened there."""
        return f"memory://{table}"

    def merge(self, table: str, rows: pa.Table, *, key: str) -> tuple[int, int]:
        """Insert new keys, replace changed rows, as one version; the last of several rows of one key counts. Return (new, changed)."""
        rows = last_of_each(rows, key=key)
        hashes = row_hashes(rows)
        with self._lock:
            newest = self._newest(table)
            if newest is None:
                self._add(table, rows, hashes)
                return rows.num_rows, 0
            there, old_hashes = newest
            place = pc.index_in(rows[key], value_set=there[key])
            is_new = pc.is_null(place)
            is_changed = pc.fill_null(pc.not_equal(pc.take(old_hashes, place), hashes), False)
            todo = pc.or_(is_new, is_changed)
            if pc.any(todo).as_py():
                incoming = rows.filter(todo)
                kept = pc.invert(pc.is_in(there[key], value_set=incoming[key]))
                self._add(table, _stacked(table, there.filter(kept), incoming), _joined(old_hashes.filter(kept), hashes.filter(todo)))
            return pc.sum(is_new).as_py() or 0, pc.sum(is_changed).as_py() or 0

    def append(self, table: str, rows: pa.Table, *, key: str) -> int:
        """Append rows whose key is not there yet, as one version; the first of several rows of one key counts. Return how many."""
        rows = first_of_each(rows, key=key)
        with self._lock:
            newest = self._newest(table)
            if newest is None:
                self._add(table, rows, row_hashes(rows))
                return rows.num_rows
            there, old_hashes = newest
            fresh = rows.filter(pc.invert(pc.is_in(rows[key], value_set=there[key])))
            if fresh.num_rows:
                self._add(table, _stacked(table, there, fresh), _joined(old_hashes, row_hashes(fresh)))
            return fresh.num_rows

    def replace(self, table: str, rows: pa.Table) -> TablePin:
        """Make these rows the table's next version; equal content makes none."""
        hashes = row_hashes(rows)
        with self._lock:
            newest = self._newest(table)
            same = newest is not None and newest[0].schema == rows.schema and content_hash(newest[1]) == content_hash(hashes)
            if not same:
                self._add(table, rows, hashes)
        pin = self.pin(table)
        assert pin is not None
        return pin

    def read(self, pin: TablePin, *, columns: Sequence[str] | None = None) -> pa.Table:
        """Read exactly this version; DataError where there is none."""
        versions = self._versions.get(pin.table, [])
        if pin.version >= len(versions):
            raise DataError(f"version {pin.version} of table {pin.table} is not in this store; make it again")
        rows = versions[pin.version][0]
        absent = [name for name in columns or () if name not in rows.column_names]
        if absent:
            raise DataError(f"version {pin.version} of table {pin.table} lacks {', '.join(absent)}; it has {', '.join(rows.column_names)}")
        return rows if columns is None else rows.select(list(columns))

    def pin(self, table: str) -> TablePin | None:
        """Return the newest version, or None where the table does not exist."""
        versions = self._versions.get(table)
        if not versions:
            return None
        rows, hashes = versions[-1]
        return TablePin(table=table, version=len(versions) - 1, rows=rows.num_rows, content_hash=content_hash(hashes))

    def _newest(self, table: str) -> tuple[pa.Table, pa.Array] | None:
        versions = self._versions.get(table)
        return versions[-1] if versions else None

    def _add(self, table: str, rows: pa.Table, hashes: pa.Array) -> None:
        self._versions.setdefault(table, []).append((rows, hashes))


def _stacked(table: str, there: pa.Table, more: pa.Table) -> pa.Table:
    for field in more.schema:
        if field.name in there.column_names and there.schema.field(field.name).type != field.type:
            raise DataError(
                f"table {table}: column {field.name} is stored as {there.schema.field(field.name).type} and arrives as {field.type}; "
                "declare it as it was, or give the column a new name"
            )
    return pa.concat_tables([there, more], promote_options="default")


def _joined(one: pa.Array, other: pa.Array) -> pa.Array:
    return pa.concat_arrays([one, other])
