"""Hashes of rows and tables: keys made from content, change detection, the content hash of a version.

All of them rest on SHA-256 over a canonical text of the row, so they depend on no library's internal hash.
"""

from __future__ import annotations

import hashlib

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

HASH_COLUMN = "_row_hash"
HASH_BYTES = 16
KEY_DIGITS = 32
_MISSING = "~"


def row_texts(rows: pa.Table) -> pa.Array:
    """One unambiguous text per row: every value with its length before it, columns sorted by name."""
    parts = [_column_texts(rows[name]) for name in sorted(rows.column_names)]
    if not parts:
        return pa.array([""] * rows.num_rows, pa.string())
    joined = pc.binary_join_element_wise(*parts, "|")
    return joined.combine_chunks() if isinstance(joined, pa.ChunkedArray) else joined


def row_hashes(rows: pa.Table) -> pa.Array:
    """First 16 bytes of the SHA-256 of every row's column names and text; the order of columns does not matter."""
    names = hashlib.sha256("|".join(sorted(rows.column_names)).encode())
    digests = [_extended(names, text).digest()[:HASH_BYTES] for text in row_texts(rows).cast(pa.binary()).to_pylist()]
    return pa.array(digests, pa.binary())


def content_hash(hashes: pa.Array | pa.ChunkedArray) -> str:
    """Hash of a table from its rows' hashes; the order of rows does not matter, their number does."""
    joined = b"".join(hashes.to_pylist())
    lanes = np.frombuffer(joined, dtype="<u8").reshape(-1, 2)
    with np.errstate(over="ignore"):
        total = lanes.sum(axis=0, dtype=np.uint64)
    return hashlib.sha256(total.tobytes() + len(lanes).to_bytes(8, "little")).hexdigest()


def content_keys(rows: pa.Table, *, tie_break: str | None) -> pa.Array:
    """Make a key per row from its content, and from its place among rows of equal content.

    `tie_break` names a column that may change later (the label): it is left out of the content and only orders equal rows, so
    that the same rows in any order, and with their labels filled in later, get the same set of keys.
    """
    content = rows.drop_columns([tie_break]) if tie_break is not None else rows
    texts = row_texts(content).dictionary_encode()
    codes = texts.indices.to_numpy()
    ties = _tie_ranks(rows[tie_break]) if tie_break is not None else np.zeros(rows.num_rows, dtype=np.int64)
    order = np.lexsort((np.arange(rows.num_rows), ties, codes))
    ordinals = np.empty(rows.num_rows, dtype=np.int64)
    ordinals[order] = _places_within(codes[order])
    prefixes = [hashlib.sha256(text) for text in texts.dictionary.cast(pa.binary()).to_pylist()]
    places = zip(codes.tolist(), ordinals.tolist(), strict=True)
    return pa.array([_extended(prefixes[code], b"#%d" % ordinal).hexdigest()[:KEY_DIGITS] for code, ordinal in places], pa.string())


def first_of_each(rows: pa.Table, *, key: str) -> pa.Table:
    """Keep the first row of every key, in order."""
    return _one_of_each(rows, key, "min")


def last_of_each(rows: pa.Table, *, key: str) -> pa.Table:
    """Keep the last row of every key, in order."""
    return _one_of_each(rows, key, "max")


def with_hashes(rows: pa.Table) -> pa.Table:
    """Add the row hashes as column `_row_hash`; columns come in the plain types that every store keeps (see `_plain_type`)."""
    rows = rows.cast(pa.schema([pa.field(field.name, _plain_type(field.type)) for field in rows.schema]))
    return rows.append_column(HASH_COLUMN, row_hashes(rows))


def _plain_type(found: pa.DataType) -> pa.DataType:
    """Tell the type that survives storing: no dictionaries, no large or fixed-size variants, microseconds."""
    if pa.types.is_dictionary(found):
        return _plain_type(found.value_type)
    if pa.types.is_large_string(found) or pa.types.is_string_view(found):
        return pa.string()
    if pa.types.is_list(found) or pa.types.is_large_list(found) or pa.types.is_fixed_size_list(found):
        return pa.list_(_plain_type(found.value_type))
    if pa.types.is_timestamp(found):
        return pa.timestamp("us", found.tz)
    return found


def compare(hashed: pa.Table, *, there: pa.Table, key: str) -> tuple[pa.ChunkedArray, pa.ChunkedArray]:
    """Tell of every hashed row whether its key is new, and whether its content differs from the row of that key that is there."""
    place = pc.index_in(hashed[key], value_set=there[key])
    differs = pc.not_equal(pc.take(there[HASH_COLUMN], place), hashed[HASH_COLUMN])
    return pc.is_null(place), pc.fill_null(differs, False)


def _one_of_each(rows: pa.Table, key: str, which: str) -> pa.Table:
    places = pa.table({"key": rows[key], "place": np.arange(rows.num_rows)}).group_by("key").aggregate([("place", which)])
    if places.num_rows == rows.num_rows:
        return rows
    return rows.take(np.sort(places[f"place_{which}"].to_numpy()))


def _extended(prefix: hashlib._Hash, more: bytes) -> hashlib._Hash:
    digest = prefix.copy()
    digest.update(more)
    return digest


def _places_within(groups: np.ndarray) -> np.ndarray:
    """0, 1, 2, ... within every run of equal values of a sorted array."""
    if not len(groups):
        return np.zeros(0, dtype=np.int64)
    starts = np.flatnonzero(np.r_[True, groups[1:] != groups[:-1]])
    return np.arange(len(groups)) - np.repeat(starts, np.diff(np.r_[starts, len(groups)]))


def _tie_ranks(values: pa.ChunkedArray) -> np.ndarray:
    ordered = pc.rank(values, sort_keys="ascending", tiebreaker="min")
    return ordered.to_numpy()


def _column_texts(values: pa.ChunkedArray) -> pa.ChunkedArray:
    if pa.types.is_list(values.type):
        texts = pa.chunked_array([_picture_texts(values)])
    else:
        plain = values.cast(values.type.value_type) if pa.types.is_dictionary(values.type) else values
        texts = _with_length(plain) if pa.types.is_string(plain.type) else plain.cast(pa.string())
    return pc.fill_null(texts, _MISSING)


def _with_length(values: pa.ChunkedArray) -> pa.ChunkedArray:
    lengths = pc.binary_length(values).cast(pa.string())
    return pc.binary_join_element_wise(lengths, values, ":")


def _picture_texts(values: pa.ChunkedArray) -> pa.Array:
    return pa.array([None if row is None else ",".join(map(repr, row)) for row in values.to_pylist()], pa.string())
