"""What of an Arrow IPC stream is looked at before it is decoded, so that a few bytes never become gigabytes (CWE-409).

Refused: compressed buffers, and types whose values take no bytes or share them. The form is Arrow's columnar format 1.5, Message.fbs.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

from platform_assets.errors import RequestError

_MARK, _PREFIX_BYTES = 0xFFFFFFFF, 8
_HEADER_TYPE, _HEADER, _BODY_LENGTH, _COMPRESSION = 6, 8, 10, 10  # places in the tables' lists of fields
_DICTIONARY_BATCH, _RECORD_BATCH = 2, 3
_DATA = 6  # of a DictionaryBatch: its RecordBatch
_SIMPLE = frozenset(
    [
        "BOOL",
        "INT8",
        "INT16",
        "INT32",
        "INT64",
        "UINT8",
        "UINT16",
        "UINT32",
        "UINT64",
        "HALF_FLOAT",
        "FLOAT",
        "DOUBLE",
        "STRING",
        "LARGE_STRING",
        "BINARY",
        "LARGE_BINARY",
        "DATE32",
        "DATE64",
        "TIME32",
        "TIME64",
        "TIMESTAMP",
        "DURATION",
        "DECIMAL32",
        "DECIMAL64",
        "DECIMAL128",
        "DECIMAL256",
    ]
)
_LISTS = frozenset(("LIST", "LARGE_LIST", "FIXED_SIZE_LIST"))
_VALUE_BYTES = 8  # what a value is counted as, beside the characters of a text


def check_not_compressed(body: bytes) -> None:
    """RequestError where a batch says that its buffers are compressed. What is no stream is left to the reader, which says so."""
    try:
        for kind, table in _messages(body):
            at = _follow(body, table, _HEADER)
            batch = _follow(body, at, _DATA) if kind == _DICTIONARY_BATCH else at
            if _place(body, batch, _COMPRESSION):
                raise RequestError(
                    "the Arrow stream is compressed; right would be one without compression, such as pyarrow writes by default"
                )
    except (struct.error, IndexError):
        return


def check_types(schema: Any, path: str = "") -> None:
    """RequestError where a column is of a type that could say more than it holds: nulls and structs in lists, views, runs, unions."""
    for name, field in ((field.name, field) for field in schema.fields):
        where, kind = f"{path}{name}", field.type.name
        if kind == "DICTIONARY":
            kind = field.value_type.type.name
        if kind in _LISTS:
            check_types(_Fields([field.value_type]), f"{where}.")
        elif kind not in _SIMPLE and not (kind == "NULL" and not path):
            raise RequestError(
                f"the column {where} of the Arrow stream is of the type {kind.lower()}, which is not taken; send plain columns or lists"
            )


def within(rows: Iterator[dict[str, Any]], *, size_bytes: int) -> list[dict[str, Any]]:
    """Rows as they are decoded, until they hold more than so many bytes could; RequestError then: their offsets overlap."""
    found, left = [], size_bytes
    for row in rows:
        left -= sum(map(_size, row.values()))
        if left < 0:
            raise RequestError(f"the rows of the Arrow stream decode to more than {size_bytes:,} bytes; send several requests")
        found.append(row)
    return found


class _Fields:
    def __init__(self, fields: list[Any]) -> None:
        self.fields = fields


def _size(value: Any) -> int:
    return len(value) + _VALUE_BYTES if isinstance(value, str | bytes | list) else _VALUE_BYTES


def _messages(body: bytes) -> Iterator[tuple[int, int]]:
    """Yield (kind of header, place of the message's table)."""
    at = 0
    while at + _PREFIX_BYTES <= len(body):
        mark, length = struct.unpack_from("<II", body, at)
        begin = at + _PREFIX_BYTES
        if mark != _MARK:  # before Arrow 0.15 the length came first
            begin, length = at + 4, mark
        if length == 0:
            return
        table = begin + struct.unpack_from("<I", body, begin)[0]
        kind_at = _place(body, table, _HEADER_TYPE)
        kind = body[table + kind_at] if kind_at else 0
        if kind in (_DICTIONARY_BATCH, _RECORD_BATCH):
            yield kind, table
        length_at = _place(body, table, _BODY_LENGTH)
        content = struct.unpack_from("<q", body, table + length_at)[0] if length_at else 0
        if content < 0:
            return
        at = begin + length + content


def _place(body: bytes, table: int, slot: int) -> int:
    """Return where a field stands in its table (FlatBuffers' vtable), 0 where it is left out."""
    fields = table - struct.unpack_from("<i", body, table)[0]
    if fields < 0:
        raise IndexError
    return int(struct.unpack_from("<H", body, fields + slot)[0]) if slot < struct.unpack_from("<H", body, fields)[0] else 0


def _follow(body: bytes, table: int, slot: int) -> int:
    place = table + _place(body, table, slot)
    return place + int(struct.unpack_from("<I", body, place)[0])
