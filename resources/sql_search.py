"""Looking for words in every text of a PostgreSQL database, whoever's table it stands in: a proof that nothing is left there."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any

from platform_assets.errors import StateError
from platform_assets.stages.training.heartbeat import connect_postgresql
from resources.databases import place_of

if TYPE_CHECKING:
    from collections.abc import Sequence

# Columns of tables, views left out, in schemas that are no part of PostgreSQL itself; a type named `_x` is an array of x.
_COLUMNS = """
    SELECT n.nspname, c.relname, a.attname, t.typname
    FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_type t ON t.oid = a.atttypid
    WHERE c.relkind IN ('r', 'm', 'f') AND a.attnum > 0 AND NOT a.attisdropped
      AND n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema'
      AND (t.typcategory = 'S' OR t.typname IN ('json', 'jsonb', 'xml', 'bytea', '_text', '_varchar', '_bpchar', '_json', '_jsonb'))
    ORDER BY 1, 2, 3
"""


def find_words(dsn: str, words: Sequence[str]) -> list[str]:
    """Return `schema.table.column` wherever one of these words stands by itself: between what is neither letter nor digit.

    Text, JSON, XML and arrays of them are read as text, binary columns byte by byte. StateError where the server does not answer, or shows
    this user not all of it.
    """
    import psycopg2
    from psycopg2 import sql

    held = [word for word in words if "\0" not in word]  # which no text of PostgreSQL's can hold
    if not held:
        return []
    text = "(?<![0-9A-Za-z])(" + "|".join(_escape(word) for word in held) + ")(?![0-9A-Za-z])"
    raw = r"(^|[^0-9A-Za-z]|\\[0-7]{3})(" + "|".join(_escape(_spell(word)) for word in held) + ")(?![0-9A-Za-z])"
    found: list[str] = []
    try:
        with closing(connect_postgresql(dsn)) as connection, connection, connection.cursor() as cursor:
            cursor.execute("SET TRANSACTION READ ONLY")
            cursor.execute(_COLUMNS)
            tables: dict[tuple[str, str], list[tuple[str, str]]] = {}
            for schema, table, column, kind in cursor.fetchall():
                tables.setdefault((schema, table), []).append((column, kind))
            for (schema, table), columns in tables.items():
                tests = [sql.SQL("coalesce(bool_or({} ~ %s), false)").format(_as_text(sql, name, kind)) for name, kind in columns]
                asked = sql.SQL("SELECT {} FROM {}").format(sql.SQL(", ").join(tests), sql.Identifier(schema, table))
                cursor.execute(asked, [raw if kind == "bytea" else text for _, kind in columns])
                seen = cursor.fetchone() or ()
                found += [f"{schema}.{table}.{name}" for (name, _), is_there in zip(columns, seen, strict=True) if is_there]
    except psycopg2.Error as error:
        raise StateError(f"PostgreSQL at {place_of(dsn)} could not be searched: {' '.join(str(error).split())}.") from error
    return found


def _as_text(sql: Any, column: str, kind: str) -> Any:
    return (sql.SQL("encode({}, 'escape')") if kind == "bytea" else sql.SQL("{}::text")).format(sql.Identifier(column))


def _spell(word: str) -> str:
    """Write a word as `encode(..., 'escape')` does: bytes above 127 as three octal digits, a backslash twice."""
    return "".join(f"\\{byte:03o}" if byte > 127 else "\\\\" if byte == 92 else chr(byte) for byte in word.encode())  # noqa: PLR2004 - ASCII


def _escape(word: str) -> str:
    """Take every character for itself in PostgreSQL's regular expressions."""
    return "".join(letter if letter.isalnum() or letter == "_" else f"\\{letter}" for letter in word)
