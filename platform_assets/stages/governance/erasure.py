"""Whose rows are whose, as pure functions: marks of a person in each table, rows that they mean, rows left when persons are forgotten.

A person is named by the value of the dataset's `subject` column. GDPR article 17, UAE PDPL article 15: what is erased must not come
back with the next delivery, so forgotten persons are kept as keyed hashes (HMAC-SHA-256, RFC 2104), from which nothing can be read.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from platform_assets.specs.subjects import Marks

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from platform_assets.specs.dataset import DatasetSpec

_MARK = b"falaj subject mark\0"  # tells it from the same value's pseudonym


def mark_of(subject: str, *, key: bytes) -> str:
    """Return the keyed hash by which a person is known where no personal value may stand: 64 hexadecimal digits."""
    return hmac.digest(key, _MARK + subject.encode(), hashlib.sha256).hex()


def pseudonym_of(subject: str, *, key: bytes) -> str:
    """Return what `protect` makes of a person's value in a pseudonymised column."""
    return hmac.digest(key, subject.encode(), hashlib.sha256).hex()


def raw_marks(dataset: DatasetSpec, subject: str) -> Marks:
    """Marks of a person in tables that hold raw values (ingested, validated)."""
    return Marks({dataset.subject: (subject,)} if dataset.subject else {})


def protected_marks(dataset: DatasetSpec, subject: str, *, keys: Sequence[str], key: bytes) -> Marks:
    """Marks in tables behind `protect`: the pseudonym, or the value itself where the column is not pseudonymised; and the person's rows."""
    named = {dataset.subject: (subject, pseudonym_of(subject, key=key))} if dataset.subject else {}
    return Marks({**named, **({dataset.key: tuple(keys)} if keys else {})})


def view_marks(dataset: DatasetSpec, view: str, subject: str, *, keys: Sequence[str], key: bytes) -> Marks:
    """Marks in a feature view: by row where its entity is the row's key, by person where it is the person, else none (groups of many)."""
    entity = dataset.views[view].entity
    if entity == dataset.key:
        return Marks({entity: tuple(keys)} if keys else {})
    return Marks({entity: (subject, pseudonym_of(subject, key=key))} if entity == dataset.subject else {})


def log_marks(subject: str, *, keys: Sequence[str], key: bytes) -> Marks:
    """Marks in a production log: rows answered under the person's keys, and inputs that name the person."""
    return Marks({"key": tuple(keys)} if keys else {}, {"inputs": (subject, pseudonym_of(subject, key=key))})


def matching(rows: pa.Table, marks: Marks) -> pa.ChunkedArray | pa.Array:
    """Return, row for row, whether a row is meant; a column that the table lacks names nobody."""
    found: pa.ChunkedArray | pa.Array = pa.array([False] * rows.num_rows, pa.bool_())
    for column, values in marks.equal.items():
        if column in rows.column_names and values:
            same = pc.is_in(rows[column].cast(pa.string()), value_set=pa.array(values, pa.string()))
            found = pc.or_(found, pc.fill_null(same, False))
    for column, values in marks.inside.items():
        for value in values if column in rows.column_names else ():
            found = pc.or_(found, pc.fill_null(pc.match_substring(rows[column].cast(pa.string()), json.dumps(value)), False))
    for column, time in marks.before.items():
        if column in rows.column_names:
            early = pc.less(rows[column].cast(pa.timestamp("us")), pa.scalar(time, pa.timestamp("us")))
            found = pc.or_(found, pc.fill_null(early, False))
    return found


def without_subjects(rows: pa.Table, *, column: str, marks: Collection[str], key: bytes) -> pa.Table:
    """Return the rows of persons who are not forgotten; `marks` are those of `mark_of`."""
    if not marks or column not in rows.column_names or not rows.num_rows:
        return rows
    coded = rows[column].cast(pa.string()).combine_chunks().dictionary_encode()
    gone = pa.array([mark_of(value, key=key) in marks for value in coded.dictionary.to_pylist()], pa.bool_())
    return rows.filter(pc.invert(pc.fill_null(pc.take(gone, coded.indices), False)))
