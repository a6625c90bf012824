"""Files of rows to be scored, read batch by batch, and files of answers, written beside and renamed once they are whole."""

from __future__ import annotations

import os
import secrets
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from platform_assets.errors import SourceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

_ENDINGS = (".csv", ".parquet")
_CSV_BLOCK_BYTES = 1 << 20
_DECODED_ROWS = 65_536  # of Parquet at once: 4,096 cost a third more, more hold more memory for nothing


class RowFile:
    """A CSV or Parquet file of rows. Nothing but its head is read before batches are asked for."""

    def __init__(self, path: Path) -> None:
        if path.suffix not in _ENDINGS:
            raise SourceError(f"{path} is neither CSV nor Parquet by its ending; give a .csv or .parquet file")
        if not path.is_file():
            raise SourceError(f"there is no file {path}; give a CSV or Parquet file with the model's columns")
        self.path = path
        with self._told():
            self.names: list[str] = self._read_names()

    def read(self, columns: Sequence[str], *, batch_rows: int, dictionaries: Sequence[str] = ()) -> Iterator[pa.RecordBatch]:
        """Yield batches of at most `batch_rows` rows of these columns; CSV values as text, `dictionaries` of Parquet as they come."""
        with self._told():
            yield from (self._read_csv if self.path.suffix == ".csv" else self._read_parquet)(columns, batch_rows, dictionaries)

    def _read_names(self) -> list[str]:
        import pyarrow.parquet as pq
        from pyarrow import csv

        if self.path.suffix == ".parquet":
            return list(pq.read_schema(self.path).names)
        with csv.open_csv(self.path, read_options=csv.ReadOptions(block_size=_CSV_BLOCK_BYTES, use_threads=False)) as reader:
            return list(reader.schema.names)

    def _read_parquet(self, columns: Sequence[str], batch_rows: int, dictionaries: Sequence[str]) -> Iterator[pa.RecordBatch]:
        import pyarrow.parquet as pq

        # Buffered: without it a reader holds the whole of a row group's columns, however large the file's writer made it.
        with pq.ParquetFile(self.path, read_dictionary=list(dictionaries), buffer_size=1 << 20, pre_buffer=False) as reader:
            for batch in reader.iter_batches(batch_size=_DECODED_ROWS, columns=list(columns), use_threads=False):
                yield from _sliced(batch, batch_rows)

    def _read_csv(self, columns: Sequence[str], batch_rows: int, dictionaries: Sequence[str]) -> Iterator[pa.RecordBatch]:
        from pyarrow import csv

        del dictionaries
        convert = csv.ConvertOptions(
            column_types=dict.fromkeys(columns, pa.string()), include_columns=list(columns), strings_can_be_null=False
        )
        with csv.open_csv(
            self.path, read_options=csv.ReadOptions(block_size=_CSV_BLOCK_BYTES), parse_options=csv.ParseOptions(newlines_in_values=True),
            convert_options=convert,
        ) as reader:  # fmt: skip
            for batch in reader:
                yield from _sliced(batch, batch_rows)

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except (pa.ArrowException, OSError) as error:
            raise SourceError(f"{self.path} cannot be read: {str(error).splitlines()[0]}") from error


def _sliced(batch: pa.RecordBatch, rows: int) -> Iterator[pa.RecordBatch]:
    return (batch.slice(start, rows) for start in range(0, batch.num_rows, rows))


def write_rows(path: Path, batches: Iterable[pa.RecordBatch]) -> int:
    """Write batches into a CSV or Parquet file, whole or not at all; return the number of rows. What was there before stays until then."""
    if path.suffix not in _ENDINGS:
        raise SourceError(f"--out {path} is neither CSV nor Parquet by its ending; name a .csv or .parquet file")
    if not path.parent.is_dir():
        raise SourceError(f"--out {path}: there is no folder {path.parent}; make it first")
    beside = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    rows = 0
    try:
        with beside.open("xb") as file:
            writer: Any = None
            for batch in batches:
                if writer is None:
                    writer = _WRITERS[path.suffix](file, batch.schema)
                writer.write_batch(batch)
                rows += batch.num_rows
            if writer is None:
                raise SourceError(f"there are no rows to write into {path}")
            writer.close()
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        raise SourceError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        beside.unlink(missing_ok=True)
    return rows


def _open_parquet(file: Any, schema: pa.Schema) -> Any:
    import pyarrow.parquet as pq

    texts = [field.name for field in schema if pa.types.is_dictionary(field.type)]
    return _RowGroups(pq.ParquetWriter(file, schema, compression="snappy", use_dictionary=texts, write_statistics=False))


def _open_csv(file: Any, schema: pa.Schema) -> Any:
    from pyarrow import csv

    return _Plain(csv.CSVWriter(file, _plain(schema)))


class _RowGroups:
    """Batches gathered into row groups of a size that readers like."""

    ROWS = 131_072

    def __init__(self, writer: Any) -> None:
        self._writer = writer
        self._waiting: list[pa.RecordBatch] = []
        self._rows = 0

    def write_batch(self, batch: pa.RecordBatch) -> None:
        self._waiting.append(batch)
        self._rows += batch.num_rows
        if self._rows >= self.ROWS:
            self._flush()

    def close(self) -> None:
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        if self._waiting:
            self._writer.write_table(pa.Table.from_batches(self._waiting), row_group_size=self._rows)
        self._waiting, self._rows = [], 0


class _Plain:
    """CSV knows no dictionaries."""

    def __init__(self, writer: Any) -> None:
        self._writer = writer

    def write_batch(self, batch: pa.RecordBatch) -> None:
        self._writer.write_batch(batch.cast(_plain(batch.schema)))

    def close(self) -> None:
        self._writer.close()


def _plain(schema: pa.Schema) -> pa.Schema:
    return pa.schema([(f.name, f.type.value_type if pa.types.is_dictionary(f.type) else f.type) for f in schema])


_WRITERS: dict[str, Callable[[Any, pa.Schema], Any]] = {".parquet": _open_parquet, ".csv": _open_csv}
