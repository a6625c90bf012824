"""Rows of a SQL query, through SQLAlchemy. The URL comes from a file and is never shown with its password."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from platform_assets.errors import SourceError
from platform_assets.specs.dataset import SqlSource

CHUNK_ROWS = 50_000


def sql_reader(source: SqlSource, *, url_file: Path) -> Callable[[], Iterator[pa.Table]]:
    """Return a reader of the query's rows in chunks; SourceError now for a bad URL file, when read for what the database refuses."""
    try:
        url = url_file.expanduser().read_text(encoding="utf-8").strip()
    except OSError as error:
        raise SourceError(
            f"url_file {url_file} cannot be read ({error.strerror}); it should hold one SQLAlchemy URL, e.g. postgresql://user@host/db"
        ) from error
    if not url:
        raise SourceError(f"url_file {url_file} is empty; it should hold one SQLAlchemy URL, e.g. postgresql://user@host/db")
    return lambda: _read(url, source.query, url_file)


def _read(url: str, query: str, url_file: Path) -> Iterator[pa.Table]:
    import sqlalchemy as sa

    try:
        engine = sa.create_engine(url)
    except (sa.exc.ArgumentError, ModuleNotFoundError) as error:
        # The error of SQLAlchemy repeats the URL, password and all: only its kind is told.
        raise SourceError(
            f"the URL in {url_file} is not one SQLAlchemy can open ({type(error).__name__}); write for example postgresql://user@host/db"
        ) from None
    try:
        with engine.connect().execution_options(stream_results=True) as connection:
            result = connection.execute(sa.text(query))
            names = list(result.keys())
            for rows in result.partitions(CHUNK_ROWS):
                yield _to_table(names, rows)
    except sa.exc.SQLAlchemyError as error:
        reason = str(getattr(error, "orig", None) or error).splitlines()[0]
        raise SourceError(f"the query {query!r} failed on {engine.url.render_as_string(hide_password=True)}: {reason}") from error
    finally:
        engine.dispose()


def _to_table(names: list[str], rows: Any) -> pa.Table:
    columns = list(zip(*rows, strict=True))
    try:
        return pa.table([pa.array(values) for values in columns], names=names)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise SourceError(
            f"the query's rows cannot be held as columns ({str(error).splitlines()[0]}); let the query cast each column to one type"
        ) from error
