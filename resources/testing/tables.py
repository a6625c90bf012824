"""The `TableStore` port in memory: for tests, and for trying a pipeline without a disk."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from platform_assets.errors import DataError
from platform_assets.specs.records import TablePin
from platform_assets.stages.datasets.fingerprints import HASH_COLUMN, compare, content_hash, first_of_each, last_of_each, with_hashes
from platform_assets.stages.governance.erasure import matching
from resources.delta_tables import as_texts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from platform_assets.specs.subjects import Marks


class MemoryTableStore:
    """Every version of every table, in this process only."""

    def __init__(self) -> None:
        self._versions: dict[str, list[pa.Table | None]] = {}  # None: taken away by an erasure
        self._lock = threading.Lock()

    def location(self, table: str) -> str:
        """Return a URL that names the table; nothing can be opened there."""
        return f"memory://{table}"

    def merge(self, table: str, rows: pa.Table, *, key: str) -> tuple[int, int]:
        """Insert new keys, replace changed rows, as one version; the last of several rows of one key counts. Return (new, changed)."""
        hashed = with_hashes(last_of_each(rows, key=key))
        with self._lock:
            there = self._newest(table)
            if there is None:
                self._versions[table] = [hashed]
                return hashed.num_rows, 0
            is_new, is_changed = compare(hashed, there=there, key=key)
            incoming = hashed.filter(pc.or_(is_new, is_changed))
            if incoming.num_rows:
                kept = there.filter(pc.invert(pc.is_in(there[key], value_set=incoming[key])))
                self._versions[table].append(_stacked(table, kept, incoming))
            return pc.sum(is_new).as_py() or 0, pc.sum(is_changed).as_py() or 0

    def append(self, table: str, rows: pa.Table, *, key: str) -> int:
        """Append rows whose key is not there yet, as one version; the first of several rows of one key counts. Return how many."""
        hashed = with_hashes(first_of_each(rows, key=key))
        with self._lock:
            there = self._newest(table)
            if there is None:
                self._versions[table] = [hashed]
                return hashed.num_rows
            fresh = hashed.filter(pc.invert(pc.is_in(hashed[key], value_set=there[key])))
            if fresh.num_rows:
                self._versions[table].append(_stacked(table, there, fresh))
            return fresh.num_rows

    def replace(self, table: str, rows: pa.Table) -> TablePin:
        """Make these rows the table's next version; equal content makes none."""
        hashed = with_hashes(rows)
        with self._lock:
            there = self._newest(table)
            if there is None or there.schema != hashed.schema or content_hash(there[HASH_COLUMN]) != content_hash(hashed[HASH_COLUMN]):
                self._versions.setdefault(table, []).append(hashed)
        pin = self.pin(table)
        assert pin is not None
        return pin

    def read(self, pin: TablePin, *, columns: Sequence[str] | None = None) -> pa.Table:
        """Read exactly this version; DataError where there is none."""
        versions = self._versions.get(pin.table, [])
        if pin.version >= len(versions) or versions[pin.version] is None:
            raise DataError(f"version {pin.version} of table {pin.table} is not in this store; make it again")
        kept = versions[pin.version]
        assert kept is not None
        rows = kept.drop_columns([HASH_COLUMN])
        absent = [name for name in columns or () if name not in rows.column_names]
        if absent:
            raise DataError(f"version {pin.version} of table {pin.table} lacks {', '.join(absent)}; it has {', '.join(rows.column_names)}")
        return rows if columns is None else rows.select(list(columns))

    def pin(self, table: str) -> TablePin | None:
        """Return the newest version, or None where the table does not exist."""
        newest = self._newest(table)
        if newest is None:
            return None
        content = content_hash(newest[HASH_COLUMN])
        return TablePin(table=table, version=len(self._versions[table]) - 1, rows=newest.num_rows, content_hash=content)

    def tables(self) -> list[str]:
        """Return the names of all tables."""
        return sorted(self._versions)

    def search(self, table: str, marks: Marks, *, columns: Sequence[str]) -> pa.Table:
        """Return what is meant in any version that is kept."""
        found = [as_texts(rows, columns).filter(matching(rows, marks)) for rows in self._versions.get(table, []) if rows is not None]
        return pa.concat_tables(found, promote_options="default") if found else as_texts(pa.table({}), columns)

    def erase(self, table: str, marks: Marks) -> int:
        """Take rows, and the versions that held them, away."""
        found = self.search(table, marks, columns=[]).num_rows
        newest = self._newest(table)
        if found and newest is not None:
            kept = newest.filter(pc.invert(matching(newest, marks)))
            self._versions[table] = [*([None] * len(self._versions[table])), kept]
        return found

    def _newest(self, table: str) -> pa.Table | None:
        versions = self._versions.get(table)
        return versions[-1] if versions else None


def _stacked(table: str, there: pa.Table, more: pa.Table) -> pa.Table:
    for field in more.schema:
        if field.name in there.column_names and there.schema.field(field.name).type != field.type:
            raise DataError(
                f"table {table}: column {field.name} is stored as {there.schema.field(field.name).type} and arrives as {field.type}; "
                "declare it as it was, or give the column a new name"
            )
    return pa.concat_tables([there, more], promote_options="default")
