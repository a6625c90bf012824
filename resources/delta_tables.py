"""The `TableStore` port over Delta Lake: one Delta table a name, below one folder or object store URL.

Every row carries `_row_hash`, so that a merge knows what changed and a version's content hash is read from one narrow column.
Writers are not locked out of each other: a commit that another one overtook is refused by Delta's log, and the work is done again on the
newer version.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from platform_assets.errors import DataError
from platform_assets.specs.records import TablePin
from platform_assets.stages.datasets.fingerprints import HASH_COLUMN, compare, content_hash, first_of_each, last_of_each, with_hashes
from platform_assets.stages.governance.erasure import matching

if TYPE_CHECKING:
    from deltalake import DeltaTable
    from deltalake.table import TableMerger
    from pyarrow.dataset import Dataset
    from pyarrow.fs import FileSystem

    from platform_assets.specs.subjects import Marks
    from resources.s3 import S3

T = TypeVar("T")
TRIES = 20
_NO_STATISTICS = {"delta.dataSkippingNumIndexedCols": "0"}  # or the log would hold each column's smallest and largest value in the open
# Stores by the root of tables in them. Feast makes its sources from path and version alone, which is all that its registry may hold.
_STORES: dict[str, S3] = {}
_LOG_KEPT = "delta.logRetentionDuration"


class DeltaTableStore:
    """Tables under `root`, a folder, or below `root` in an S3-compatible store."""

    def __init__(self, root: Path | str, *, store: S3 | None = None) -> None:
        self._root = f"{store.url}/{root}" if store else str(root).rstrip("/")
        self._store = store
        if store is not None:
            _STORES[self._root] = store
        self._pins: dict[tuple[object, int], TablePin] = {}

    def location(self, table: str) -> str:
        """Return the path or URL under which delta readers open the table."""
        return f"{self._root}/{table}"

    def merge(self, table: str, rows: pa.Table, *, key: str) -> tuple[int, int]:
        """Insert new keys, replace changed rows, in one commit; the last of several rows of one key counts. Return (new, changed)."""
        hashed = with_hashes(last_of_each(rows, key=key))
        return self._retry(table, lambda: self._merge_once(table, hashed, key=key))

    def append(self, table: str, rows: pa.Table, *, key: str) -> int:
        """Append rows whose key is not there yet, in one commit; the first of several rows of one key counts. Return how many."""
        hashed = with_hashes(first_of_each(rows, key=key))
        return self._retry(table, lambda: self._append_once(table, hashed, key=key))

    def replace(self, table: str, rows: pa.Table) -> TablePin:
        """Make these rows the table's next version; equal content makes no commit."""
        hashed = with_hashes(rows)
        return self._retry(table, lambda: self._replace_once(table, hashed))

    def read(self, pin: TablePin, *, columns: Sequence[str] | None = None) -> pa.Table:
        """Read exactly this version; DataError where it is not there (any more)."""
        from deltalake.exceptions import DeltaError

        try:
            delta = open_delta(self.location(pin.table), version=pin.version)
        except DeltaError as error:
            raise DataError(
                f"version {pin.version} of table {pin.table} is not at {self.location(pin.table)}; make it again, or restore it"
            ) from error
        present = [field.name for field in delta.schema().fields if field.name != HASH_COLUMN]
        absent = [name for name in columns or () if name not in present]
        if absent:
            raise DataError(f"version {pin.version} of table {pin.table} lacks {', '.join(absent)}; it has {', '.join(present)}")
        return _plain(open_dataset(delta).to_table(columns=present if columns is None else list(columns)))

    def pin(self, table: str) -> TablePin | None:
        """Return the newest version, or None where the table does not exist."""
        delta = self._open(table)
        return None if delta is None else self._pin_of(table, delta)

    def tables(self) -> list[str]:
        """Return the names of all tables."""
        root = Path(self._place[1])
        names = {Path(file).parent for file in self._files("") if "_delta_log" in Path(file).parts}
        return sorted(folder.parent.relative_to(root).as_posix() for folder in names if folder.name == "_delta_log")

    def search(self, table: str, marks: Marks, *, columns: Sequence[str]) -> pa.Table:
        """Look through every data file that is there, whatever version it belongs to, or none any more."""
        import pyarrow.parquet as pq

        found = [as_texts(pa.table({}), columns)]
        filesystem = self._place[0]
        for file in sorted(file for file in self._files(table) if file.endswith(".parquet")):
            if "_delta_log" in Path(file).parts:
                continue
            names = pq.read_schema(file, filesystem=filesystem).names
            wanted = [name for name in dict.fromkeys([*marks.columns, *columns]) if name in names]
            rows = pq.read_table(file, columns=wanted, filesystem=filesystem)
            found.append(as_texts(rows, columns).filter(matching(rows, marks)))  # rows as they lie may be views, which Arrow cannot filter
        return pa.concat_tables(found, promote_options="default")

    def erase(self, table: str, marks: Marks) -> int:
        """Write the newest version without the rows, then remove all files and log entries of the versions before."""
        from deltalake import write_deltalake

        found = self.search(table, marks, columns=[]).num_rows
        delta = self._open(table)
        if not found or delta is None:
            return 0
        rows = open_dataset(delta).to_table()
        meant = matching(rows, marks)
        if pc.any(meant).as_py():
            kept = rows.filter(pc.invert(meant))
            self._retry(table, lambda: write_deltalake(self._must_open(table), kept, mode="overwrite", schema_mode="overwrite"))
        self._cut_history(table)
        return found

    def _cut_history(self, table: str) -> None:
        """Keep the newest version alone: the log's old entries, too, hold values (smallest and largest of each column)."""
        self._must_open(table).vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=False, full=True)
        self._must_open(table).alter.set_table_properties({**_NO_STATISTICS, _LOG_KEPT: "interval 0 seconds"})
        newest = self._must_open(table)
        newest.create_checkpoint()
        newest.cleanup_metadata()
        newest.alter.set_table_properties({_LOG_KEPT: "interval 30 days"})

    @property
    def _place(self) -> tuple[FileSystem, str]:
        """Return the file system of the tables, and the path of their root in it."""
        from pyarrow.fs import LocalFileSystem

        if self._store is None:
            return LocalFileSystem(), str(Path(self._root).absolute())
        return self._store.filesystem, self._root.removeprefix("s3://")

    def _files(self, table: str) -> list[str]:
        from pyarrow.fs import FileSelector, FileType

        filesystem, root = self._place
        selector = FileSelector(f"{root}/{table}".rstrip("/"), recursive=True, allow_not_found=True)
        return [info.path for info in filesystem.get_file_info(selector) if info.type == FileType.File]

    def _must_open(self, table: str) -> DeltaTable:
        delta = self._open(table)
        assert delta is not None
        return delta

    def _merge_once(self, table: str, hashed: pa.Table, *, key: str) -> tuple[int, int]:
        delta = self._open(table)
        if delta is None:
            self._create(table, hashed)
            return hashed.num_rows, 0
        there = open_dataset(delta).to_table(columns=[key, HASH_COLUMN])
        is_new, is_changed = compare(hashed, there=there, key=key)
        todo = hashed.filter(pc.or_(is_new, is_changed))
        if todo.num_rows:
            _merger(delta, todo, table=table, key=key).when_matched_update_all().when_not_matched_insert_all().execute()
        return pc.sum(is_new).as_py() or 0, pc.sum(is_changed).as_py() or 0

    def _append_once(self, table: str, hashed: pa.Table, *, key: str) -> int:
        delta = self._open(table)
        if delta is None:
            self._create(table, hashed)
            return hashed.num_rows
        there = open_dataset(delta).to_table(columns=[key])
        fresh = hashed.filter(pc.invert(pc.is_in(hashed[key], value_set=there[key])))
        if fresh.num_rows:
            # A merge, not a plain append: Delta lets plain appends pass each other, and one key would stand there twice.
            _merger(delta, fresh, table=table, key=key).when_not_matched_insert_all().execute()
        return fresh.num_rows

    def _replace_once(self, table: str, hashed: pa.Table) -> TablePin:
        from deltalake import write_deltalake

        delta = self._open(table)
        if delta is None:
            return self._pin_of(table, self._create(table, hashed))
        pin = self._pin_of(table, delta)
        stored = open_dataset(delta).schema
        same_columns = stored.names == hashed.column_names and all(map(_same_type, stored.types, hashed.schema.types))
        if same_columns and pin.content_hash == content_hash(hashed[HASH_COLUMN]):
            return pin
        write_deltalake(delta, hashed, mode="overwrite", schema_mode="overwrite")
        return self._pin_of(table, delta)

    def _create(self, table: str, hashed: pa.Table) -> DeltaTable:
        from deltalake import write_deltalake

        options = self._store.delta_options if self._store else None
        write_deltalake(self.location(table), hashed, mode="error", configuration=_NO_STATISTICS, storage_options=options)
        return open_delta(self.location(table), version=0)

    def _open(self, table: str) -> DeltaTable | None:
        from deltalake.exceptions import TableNotFoundError

        try:
            return open_delta(self.location(table))
        except TableNotFoundError:
            return None

    def _pin_of(self, table: str, delta: DeltaTable) -> TablePin:
        place = (delta.metadata().id, delta.version())  # the id, because a table may be removed and made again
        if place not in self._pins:
            hashes = open_dataset(delta).to_table(columns=[HASH_COLUMN])[HASH_COLUMN]
            self._pins[place] = TablePin(table=table, version=delta.version(), rows=len(hashes), content_hash=content_hash(hashes))
        return self._pins[place]

    def _retry(self, table: str, work: Callable[[], T]) -> T:
        """Do the work again on the newer version where another writer's commit came first."""
        from deltalake.exceptions import CommitFailedError, DeltaError

        for attempt in range(TRIES):
            try:
                return work()
            except CommitFailedError:
                pass
            except DeltaError as error:
                if "already exists" not in str(error):  # two writers made the first version; Delta has no type for it
                    raise
            time.sleep(random.uniform(0, 0.05 * (attempt + 1)))  # noqa: S311  only to let writers pass each other
        raise DataError(
            f"table {table} at {self.location(table)} was changed by others {TRIES} times in a row; let fewer writers work on it at once"
        )


def open_delta(place: str, *, version: int | None = None) -> DeltaTable:
    """Open a table by its path or URL; one in a store is reached as the table store that was made for it is."""
    from deltalake import DeltaTable

    store = _store_of(place)
    return DeltaTable(place, version=version, storage_options=store.delta_options if store else None)


def _store_of(place: str) -> S3 | None:
    return next((store for root, store in _STORES.items() if place.startswith(f"{root}/")), None)


def as_texts(rows: pa.Table, columns: Sequence[str]) -> pa.Table:
    """Return these columns as text, null where the rows lack one."""
    texts = {name: rows[name].cast(pa.string()) if name in rows.column_names else pa.nulls(rows.num_rows, pa.string()) for name in columns}
    if texts:
        return pa.table(texts)
    return pa.table({"row": pa.array(range(rows.num_rows), pa.int64())})  # a table without columns has no rows


def open_dataset(delta: DeltaTable) -> Dataset:
    """Open a version for reading; below a folder Arrow reads the files itself.

    Through deltalake's filesystem, which is Python, a reading thread that outlives the interpreter by a moment ends the process with
    SIGABRT (seen in one of nine writers that ran side by side).
    """
    from urllib.parse import unquote, urlsplit

    from pyarrow.fs import LocalFileSystem, SubTreeFileSystem

    place = urlsplit(delta.table_uri)
    store = _store_of(delta.table_uri)
    if store is not None:
        return delta.to_pyarrow_dataset(filesystem=SubTreeFileSystem(delta.table_uri.removeprefix("s3://").rstrip("/"), store.filesystem))
    if place.scheme not in ("", "file"):
        return delta.to_pyarrow_dataset()
    return delta.to_pyarrow_dataset(filesystem=SubTreeFileSystem(unquote(place.path), LocalFileSystem()))


def _merger(delta: DeltaTable, rows: pa.Table, *, table: str, key: str) -> TableMerger:
    stored = open_dataset(delta).schema
    _check_types(stored, rows, table=table)
    for field in stored:
        if field.name not in rows.column_names:  # or the old value would stay beside the new row's hash
            rows = rows.append_column(field.name, pa.nulls(rows.num_rows, field.type))
    return delta.merge(rows, predicate=f't."{key}" = s."{key}"', source_alias="s", target_alias="t", merge_schema=True)


def _check_types(stored: pa.Schema, rows: pa.Table, *, table: str) -> None:
    for field in rows.schema:
        there = stored.field(field.name) if field.name in stored.names else None
        if there is not None and not _same_type(there.type, field.type):
            raise DataError(
                f"table {table}: column {field.name} is stored as {there.type} and arrives as {field.type}; "
                "declare it as it was, or give the column a new name"
            )


def _same_type(one: pa.DataType, other: pa.DataType) -> bool:
    if pa.types.is_list(one) and pa.types.is_list(other):  # the name of a list's inner field does not survive Delta
        return one.value_type == other.value_type
    return one == other


def _plain(rows: pa.Table) -> pa.Table:
    """Give list columns back under Arrow's own inner name, so that what was written equals what is read."""
    fields = [pa.field(field.name, pa.list_(field.type.value_type)) if pa.types.is_list(field.type) else field for field in rows.schema]
    return rows.cast(pa.schema(fields))
