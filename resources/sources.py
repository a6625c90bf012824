"""Where rows come from: one reader per member of `specs.dataset.Source`, all behind the `Source` port.

A reader yields raw Arrow tables; what all share (declared columns, types, keys, unknown labels) is done once, in `DeclaredSource`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from pathlib import Path

import pyarrow as pa

from platform_assets.errors import SourceError
from platform_assets.ports import Source
from platform_assets.specs.dataset import Column, DatasetSpec, DigitsSource, FileSource, ProvidedSource, SimulatorSource, SqlSource
from platform_assets.stages.datasets.columns import conform
from platform_assets.stages.datasets.digits import read_digits
from platform_assets.stages.datasets.fingerprints import content_keys
from platform_assets.stages.datasets.simulator import simulate
from platform_assets.stages.datasets.stream import after, history_end, known_by
from platform_assets.stages.governance.erasure import without_subjects
from resources.erasures import Erasures
from resources.file_reader import read_files
from resources.settings import CHECKOUT
from resources.sql_reader import sql_reader

CHUNK_ROWS = 50_000
RawReader = Callable[[], Iterator[pa.Table]]


@dataclass(frozen=True)
class DeclaredSource:
    """Raw rows of any origin as the declared columns, with a key, as known at a time."""

    spec: DatasetSpec
    raw: RawReader
    where: str

    def read(self, until: datetime | None) -> Iterator[pa.Table]:
        """Yield chunks of the declared columns, cast to their types; labels not known by `until` are null.

        A source without the key column is read whole, because a key made from content counts equal rows. Raises DataError.
        """
        for rows in self._keyed():
            known = known_by(rows, spec=self.spec, until=until)
            if known.num_rows:
                yield known

    def _keyed(self) -> Iterator[pa.Table]:
        chunks = (chunk for chunk in self.raw() if chunk.num_rows)
        first = next(chunks, None)
        if first is None:
            raise SourceError(f"{self.where} holds no rows; dataset {self.spec.name} needs at least {self.spec.contract.min_rows}")
        columns = dict(self.spec.columns)
        whole = chain([first], chunks)
        if self.spec.key in first.column_names:
            return (conform(chunk, columns=columns, where=self.where) for chunk in whole)
        return self._with_made_key(whole, columns)

    def _with_made_key(self, chunks: Iterator[pa.Table], columns: dict[str, Column]) -> Iterator[pa.Table]:
        key = self.spec.key
        if columns[key].type != "string":
            raise SourceError(
                f"{self.where} lacks the key column {key}, and a made key is a string while {key} is declared {columns[key].type}: "
                f"name the right column as key, or declare {key} as string"
            )
        content = {name: column for name, column in columns.items() if name != key}
        whole = pa.concat_tables([conform(chunk, columns=content, where=self.where) for chunk in chunks])
        made = content_keys(whole, tie_break=self.spec.label.column if self.spec.label is not None else None)
        keyed = whole.append_column(key, made).select(list(columns))
        return (keyed.slice(start, CHUNK_ROWS) for start in range(0, keyed.num_rows, CHUNK_ROWS))


def open_source(spec: DatasetSpec, *, provided: str | None) -> Source:
    """Open a dataset's source; `provided` (path or URL) takes the place of the declared one.

    Nothing is read yet, except the file that holds a SQL URL. Raises SourceError.
    """
    source = FileSource(kind="file", path=provided) if provided is not None else spec.source
    wanted = tuple(spec.columns)
    if isinstance(source, FileSource):
        path = source.path if provided is not None else _from_checkout(source.path)
        return DeclaredSource(spec, lambda: read_files(path, format_=source.format, columns=wanted, key=spec.key), where=f"source {path}")
    if isinstance(source, SimulatorSource):
        return DeclaredSource(spec, lambda: _sliced(simulate(source)), where="the hotel simulator")
    if isinstance(source, DigitsSource):
        return DeclaredSource(spec, lambda: _sliced(read_digits(source.seed)), where="the digits of scikit-learn")
    if isinstance(source, SqlSource):
        return DeclaredSource(
            spec, sql_reader(source, url_file=Path(_from_checkout(source.url_file))), where=f"the query of dataset {spec.name}"
        )
    assert isinstance(source, ProvidedSource)
    raise SourceError(
        f"dataset {spec.name} has no source of its own; provide one: `falaj run --source {spec.name}=PATH` (CSV, Parquet or Delta)"
    )


def stream_start(spec: DatasetSpec, source: Source) -> datetime | None:
    """Give T0, the end of history: events after it are live traffic. None where the dataset declares no history."""
    if spec.history is None:
        return None
    return history_end(_whole(source), spec=spec)


def live_rows(spec: DatasetSpec, source: Source) -> pa.Table:
    """Give the rows of live traffic in order of their events, with their outcomes: for replay only, never for training.

    A dataset without history has none: the table is empty.
    """
    rows = _whole(source)
    start = history_end(rows, spec=spec)
    return rows.slice(0, 0) if start is None else after(rows, spec=spec, start=start)


def _whole(source: Source) -> pa.Table:
    return pa.concat_tables(list(source.read(None)))


def _sliced(rows: pa.Table) -> Iterator[pa.Table]:
    return (rows.slice(start, CHUNK_ROWS) for start in range(0, rows.num_rows, CHUNK_ROWS))


def _from_checkout(path: str) -> str:
    """Resolve a declared path against the checkout: the daemon and the command line start in different folders."""
    if "://" in path or Path(path).expanduser().is_absolute():
        return path
    return str(CHECKOUT / path)


@dataclass(frozen=True)
class WithoutForgotten:
    """A source read without the rows of persons who are forgotten: what was erased does not come back with the next delivery."""

    source: Source
    column: str
    dataset: str
    erasures: Erasures
    key: bytes

    def read(self, until: datetime | None) -> Iterator[pa.Table]:
        """Yield the source's chunks without those rows; a chunk of theirs alone is left out."""
        marks = self.erasures.forgotten(self.dataset)
        for rows in self.source.read(until):
            kept = without_subjects(rows, column=self.column, marks=marks, key=self.key)
            if kept.num_rows:
                yield kept
