"""Personal data leaves a table here: dropped, pseudonymised or generalised, by declaration. Erasure and residency are other modules."""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from platform_assets.errors import StageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from platform_assets.specs.dataset import Column

KEY_BYTES = 16


def protect(rows: pa.Table, *, columns: Mapping[str, Column], key: bytes) -> pa.Table:
    """Apply each column's declared protection; other columns stay as they are, missing values stay missing.

    Drop removes the column. Pseudonymise gives 64 hex digits of HMAC-SHA-256 (RFC 2104) over the value's text, whatever its type was.
    Generalise gives the floor of the value's bin; an integer column stays one where the width is whole. Raises StageError for a key that
    is too short to keep a secret.
    """
    if len(key) < KEY_BYTES:
        raise StageError(f"the pseudonymisation key has {len(key)} bytes; it needs at least {KEY_BYTES}")
    for name, column in columns.items():
        if column.personal is None or name not in rows.column_names:
            continue
        place = rows.column_names.index(name)
        if column.personal.method == "drop":
            rows = rows.remove_column(place)
        elif column.personal.method == "pseudonymise":
            rows = rows.set_column(place, name, _pseudonymise(rows[name], key))
        else:
            rows = rows.set_column(place, name, _generalise(rows[name], column.personal.width))
    return rows


def _pseudonymise(values: pa.ChunkedArray, key: bytes) -> pa.Array:
    coded = values.cast(pa.string()).combine_chunks().dictionary_encode()
    names = [hmac.digest(key, value.encode(), hashlib.sha256).hex() for value in coded.dictionary.to_pylist()]
    return pa.DictionaryArray.from_arrays(coded.indices, pa.array(names, pa.string())).cast(pa.string())


def _generalise(values: pa.ChunkedArray, width: float) -> pa.ChunkedArray:
    if pa.types.is_integer(values.type) and float(width).is_integer():
        whole = int(width)
        # Arrow divides integers towards zero; a floor takes one more off a negative number that does not divide.
        quotient = pc.divide(values, whole)
        rest = pc.subtract(values, pc.multiply(quotient, whole))
        return pc.multiply(pc.subtract(quotient, pc.less(rest, 0).cast(pa.int64())), whole)
    return pc.multiply(pc.floor(pc.divide(values.cast(pa.float64()), width)), width)
