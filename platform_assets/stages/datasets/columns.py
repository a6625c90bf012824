"""Declared column types as Arrow types, and casting of whatever a source delivers to them. No reading happens here."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from platform_assets.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from platform_assets.specs.dataset import Column

ARROW_TYPES: Mapping[str, pa.DataType] = {
    "integer": pa.int64(),
    "number": pa.float64(),
    "string": pa.string(),
    "boolean": pa.bool_(),
    "timestamp": pa.timestamp("us"),
    "image": pa.list_(pa.float32()),
    "text": pa.string(),
}
# What CSV writers put for a missing value. "NA" stays a value in string columns: it is Namibia's country code.
MISSING_TEXTS = ("", "NULL", "null")
MISSING_NUMBER_TEXTS = (*MISSING_TEXTS, "NA", "N/A", "NaN", "nan", "None")
TRUE_TEXTS = ("true", "1", "yes")
FALSE_TEXTS = ("false", "0", "no")


def arrow_schema(columns: Mapping[str, Column]) -> pa.Schema:
    """Give the schema of a table of these columns, in declared order."""
    return pa.schema([(name, ARROW_TYPES[column.type]) for name, column in columns.items()])


def conform(rows: pa.Table, *, columns: Mapping[str, Column], where: str) -> pa.Table:
    """Keep the declared columns, in declared order, cast to their declared types.

    A missing column or a value that is not of its declared type raises DataError naming column and `where`.
    NaN becomes null; times with a zone become naive UTC; whole numbers in a string column lose their ".0".
    """
    missing = [name for name in columns if name not in rows.column_names]
    if missing:
        raise DataError(
            f"{where} lacks {'columns' if len(missing) > 1 else 'column'} {', '.join(missing)}; it has {', '.join(rows.column_names)}: "
            "add what is missing to the source, or take it out of the dataset's columns"
        )
    cast = [_cast(rows[name], name=name, column=column, where=where) for name, column in columns.items()]
    return pa.table(cast, schema=arrow_schema(columns))


def _cast(values: pa.ChunkedArray, *, name: str, column: Column, where: str) -> pa.ChunkedArray:
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    if pa.types.is_null(values.type):
        return values.cast(ARROW_TYPES[column.type])
    if pa.types.is_large_string(values.type) or pa.types.is_string_view(values.type):
        values = values.cast(pa.string())
    if pa.types.is_decimal(values.type):
        values = values.cast(pa.float64())
    try:
        if column.type == "image":
            return _to_image(values, column)
        return _CASTS[column.type](values)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(
            f"{where}: column {name} is declared {column.type}, found {values.type} that does not fit ({reason}): "
            "correct the values, or the column's type in the dataset's declaration"
        ) from error


def _to_integer(values: pa.ChunkedArray) -> pa.ChunkedArray:
    values = _without_missing_texts(values, MISSING_NUMBER_TEXTS)
    if pa.types.is_string(values.type):
        try:
            return values.cast(pa.int64())
        except pa.ArrowInvalid:
            values = values.cast(pa.float64())  # "2.0", as pandas writes integers that were once beside a missing one
    return _nan_to_null(values).cast(pa.int64())


def _to_number(values: pa.ChunkedArray) -> pa.ChunkedArray:
    return _nan_to_null(_without_missing_texts(values, MISSING_NUMBER_TEXTS).cast(pa.float64()))


def _to_string(values: pa.ChunkedArray) -> pa.ChunkedArray:
    if pa.types.is_floating(values.type):
        values = _nan_to_null(values)
        whole = pc.all(pc.equal(values, pc.floor(values))).as_py()
        values = values.cast(pa.int64()) if whole is not False else values
    return _without_missing_texts(values.cast(pa.string()), MISSING_TEXTS)


def _to_text(values: pa.ChunkedArray) -> pa.ChunkedArray:
    return _without_missing_texts(values.cast(pa.string()), ("",))  # "null" may be what somebody wrote


def _to_boolean(values: pa.ChunkedArray) -> pa.ChunkedArray:
    if pa.types.is_boolean(values.type):
        return values
    text = pc.utf8_lower(_without_missing_texts(_to_string(values), MISSING_NUMBER_TEXTS))
    known = pc.is_in(text, value_set=pa.array([*TRUE_TEXTS, *FALSE_TEXTS, None], pa.string()))
    if not pc.all(known).as_py():
        raise ValueError(f"{text.filter(pc.invert(known))[0].as_py()!r} is neither true nor false")
    return pc.if_else(pc.is_valid(text), pc.is_in(text, value_set=pa.array(TRUE_TEXTS)), pa.scalar(None, pa.bool_()))


def _to_timestamp(values: pa.ChunkedArray) -> pa.ChunkedArray:
    values = _without_missing_texts(values, MISSING_NUMBER_TEXTS)
    if pa.types.is_string(values.type):
        try:
            return values.cast(pa.timestamp("us"))
        except pa.ArrowInvalid as error:
            if "zone" not in str(error):
                raise
            values = values.cast(pa.timestamp("us", "UTC"))
    if not (pa.types.is_timestamp(values.type) or pa.types.is_date(values.type)):
        raise ValueError("write times as timestamps, dates or ISO 8601 text")
    if pa.types.is_timestamp(values.type) and values.type.tz is not None:
        values = values.cast(pa.timestamp(values.type.unit, "UTC"))  # the naive value of a zoned timestamp is UTC already
    return values.cast(pa.timestamp("us"), safe=False)


def _to_image(values: pa.ChunkedArray, column: Column) -> pa.ChunkedArray:
    assert column.shape is not None
    size = column.shape[0] * column.shape[1]
    pictures = values.cast(ARROW_TYPES["image"])
    lengths = pc.list_value_length(pictures)
    if not pc.all(pc.equal(lengths, size)).as_py() and len(pictures):
        wrong = lengths.filter(pc.not_equal(lengths, size))
        found = wrong[0].as_py() if len(wrong) else "no"
        raise ValueError(f"a picture of {column.shape[0]}x{column.shape[1]} has {size} numbers, one with {found} was found")
    return pictures


def _without_missing_texts(values: pa.ChunkedArray, texts: tuple[str, ...]) -> pa.ChunkedArray:
    if not pa.types.is_string(values.type):
        return values
    return pc.if_else(pc.is_in(values, value_set=pa.array(texts)), pa.scalar(None, pa.string()), values)


def _nan_to_null(values: pa.ChunkedArray) -> pa.ChunkedArray:
    if not pa.types.is_floating(values.type):
        return values
    return pc.if_else(pc.is_nan(values), pa.scalar(None, values.type), values)


_CASTS: Mapping[str, Callable[[pa.ChunkedArray], pa.ChunkedArray]] = {
    "integer": _to_integer,
    "number": _to_number,
    "string": _to_string,
    "boolean": _to_boolean,
    "timestamp": _to_timestamp,
    "text": _to_text,
}
