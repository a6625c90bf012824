"""Rows of files: CSV, Parquet or Delta; one file, a folder, or an object store URL (anything fsspec opens)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

import pyarrow as pa

from platform_assets.errors import SourceError
from resources.delta_tables import open_dataset

CHUNK_ROWS = 50_000
CSV_BLOCK_BYTES = 16 * 2**20
_ENDINGS = {".csv": "csv", ".csv.gz": "csv", ".parquet": "parquet", ".pq": "parquet"}
_WAYS = "a .csv, .csv.gz or .parquet file, a folder of them, or a Delta table"


def read_files(path: str, *, format_: str | None, columns: Sequence[str], key: str) -> Iterator[pa.Table]:
    """Yield the rows of a path or URL in chunks, files of a folder in order of their names; only `columns`, of which `key` may be absent.

    CSV values are yielded as text, for the declared types to read. Raises SourceError.
    """
    import fsspec

    try:
        fs, root = fsspec.core.url_to_fs(path)
        if not fs.exists(root):
            raise SourceError(f"source {path} does not exist; give {_WAYS}")
        format_ = format_ or _told_format(fs, root, path)
        if format_ == "delta":
            yield from _read_delta(path, columns, key)
            return
        for file in _files(fs, root, path, format_):
            yield from (_read_csv if format_ == "csv" else _read_parquet)(fs, file, columns, key)
    except (OSError, ValueError, ImportError) as error:  # fsspec's own: unknown protocol, absent driver, refused connection
        raise SourceError(f"source {path} cannot be read ({str(error).splitlines()[0]}); give {_WAYS}") from error


def read_table(path: str) -> pa.Table:
    """Read a whole table of any columns, types as they stand, those of a CSV as they look. Raises SourceError."""
    import fsspec
    from deltalake import DeltaTable
    from deltalake.exceptions import DeltaError
    from pyarrow import csv, parquet

    try:
        fs, root = fsspec.core.url_to_fs(path)
        if not fs.exists(root):
            raise SourceError(f"table {path} does not exist; give {_WAYS}")
        format_ = _told_format(fs, root, path)
        if format_ == "delta":
            return open_dataset(DeltaTable(path)).to_table()
        tables = []
        for file in _files(fs, root, path, format_):
            with fs.open(file, "rb", compression="infer" if format_ == "csv" else None) as handle:
                tables.append(csv.read_csv(handle) if format_ == "csv" else parquet.read_table(handle))
        return pa.concat_tables(tables, promote_options="permissive")
    except (OSError, ValueError, ImportError, pa.ArrowException, DeltaError) as error:
        raise SourceError(f"table {path} cannot be read ({str(error).splitlines()[0]}); give {_WAYS}") from error


def _told_format(fs: Any, root: str, path: str) -> str:
    if not fs.isdir(root):
        return _format_of(root) or _refuse_format(path)
    if fs.exists(f"{root.rstrip('/')}/_delta_log"):
        return "delta"
    formats = {_format_of(file) for file in _visible(fs, root)} - {None}
    if len(formats) > 1:
        raise SourceError(f"source {path} is a folder of both csv and parquet files; say which with `format`, or separate them")
    return (formats.pop() if formats else None) or _refuse_format(path)


def _refuse_format(path: str) -> NoReturn:
    raise SourceError(f"the format of source {path} is not told by its ending; give {_WAYS}, or say `format: csv` or `format: parquet`")


def _format_of(file: str) -> str | None:
    return next((format_ for ending, format_ in _ENDINGS.items() if file.lower().endswith(ending)), None)


def _visible(fs: Any, root: str) -> list[str]:
    return sorted(file for file in fs.find(root) if not file.rsplit("/", 1)[-1].startswith((".", "_")))


def _files(fs: Any, root: str, path: str, format_: str) -> list[str]:
    if not fs.isdir(root):
        return [root]
    files = [file for file in _visible(fs, root) if _format_of(file) in (format_, None)]
    if not files:
        raise SourceError(f"folder {path} holds no {format_} file; give {_WAYS}")
    return files


def _present(found: Sequence[str], columns: Sequence[str], key: str, *, where: str) -> list[str]:
    """Tell which columns to read; one that is absent (the key may be) is named together with all that are there."""
    missing = [name for name in columns if name not in found and name != key]
    if missing:
        raise SourceError(
            f"{where} lacks {'columns' if len(missing) > 1 else 'column'} {', '.join(missing)}; it has {', '.join(found)}: "
            "add what is missing to the source, or take it out of the dataset's columns"
        )
    return [name for name in columns if name in found]


def _is_local(fs: Any) -> bool:
    """Local files are read by Arrow itself: its threads then never wait for Python, not even while the interpreter ends."""
    from fsspec.implementations.local import LocalFileSystem

    return isinstance(fs, LocalFileSystem)


def _read_parquet(fs: Any, file: str, columns: Sequence[str], key: str) -> Iterator[pa.Table]:
    import pyarrow.parquet as pq

    with pa.OSFile(file) if _is_local(fs) else fs.open(file, "rb") as handle:
        try:
            reader = pq.ParquetFile(handle)
        except pa.ArrowException as error:
            raise SourceError(
                f"{file} is not a Parquet file that can be read ({str(error).splitlines()[0]}); write it again, or give {_WAYS}"
            ) from error
        wanted = _present(reader.schema_arrow.names, columns, key, where=file)
        for batch in reader.iter_batches(batch_size=CHUNK_ROWS, columns=wanted):
            yield pa.Table.from_batches([batch])


def _read_csv(fs: Any, file: str, columns: Sequence[str], key: str) -> Iterator[pa.Table]:
    from pyarrow import csv

    with fs.open(file, "rb", compression="infer") as handle:
        line = handle.readline(CSV_BLOCK_BYTES + 1)  # not more: a few bytes of gzip can hold a line of gigabytes
    if len(line) > CSV_BLOCK_BYTES:
        raise SourceError(f"{file} is not a CSV file that can be read (its first line has over {CSV_BLOCK_BYTES:,} bytes)")
    header = line.decode("utf-8-sig", errors="replace").strip()
    if not header:
        raise SourceError(f"{file} is empty; a CSV file needs a first line with the names of its columns")
    with pa.input_stream(file, compression="detect") if _is_local(fs) else fs.open(file, "rb", compression="infer") as handle:
        try:
            # Everything as text: the declared types read it, and an odd value is then named together with its column.
            parse = csv.ParseOptions(newlines_in_values=True)
            convert = csv.ConvertOptions(column_types=dict.fromkeys(columns, pa.string()), strings_can_be_null=False)
            reader = csv.open_csv(
                handle, read_options=csv.ReadOptions(block_size=CSV_BLOCK_BYTES), parse_options=parse, convert_options=convert
            )
            for batch in reader:
                rows = pa.Table.from_batches([batch])
                yield rows.select(_present(rows.column_names, columns, key, where=file))
        except pa.ArrowException as error:
            raise SourceError(
                f"{file} is not a CSV file that can be read ({str(error).splitlines()[0]}); the separator is a comma"
            ) from error


def _read_delta(path: str, columns: Sequence[str], key: str) -> Iterator[pa.Table]:
    from deltalake import DeltaTable
    from deltalake.exceptions import DeltaError

    try:
        dataset = open_dataset(DeltaTable(path))
        wanted = _present(dataset.schema.names, columns, key, where=path)
        for batch in dataset.to_batches(columns=wanted, batch_size=CHUNK_ROWS):
            yield pa.Table.from_batches([batch])
    except DeltaError as error:
        raise SourceError(f"source {path} is not a Delta table that can be read ({str(error).splitlines()[0]})") from error
