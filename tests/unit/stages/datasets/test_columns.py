from __future__ import annotations

from datetime import date, datetime, timedelta, timezone
from decimal import Decimal

import pyarrow as pa
import pytest

from platform_assets.errors import DataError
from platform_assets.specs.dataset import Column
from platform_assets.stages.datasets.columns import ARROW_TYPES, conform

DAY = datetime(2024, 2, 3, 4, 5)
CASES = [
    ("integer", pa.array([1, None], pa.int8()), [1, None]),
    ("integer", pa.array([2.0, float("nan")]), [2, None]),
    ("integer", pa.array(["3", "NA"]), [3, None]),
    ("integer", pa.array(["3.0", ""]), [3, None]),
    ("integer", pa.array([True, None]), [1, None]),
    ("number", pa.array([1, None]), [1.0, None]),
    ("number", pa.array(["0.5", "NULL"]), [0.5, None]),
    ("number", pa.array([Decimal("1.25"), None]), [1.25, None]),
    ("string", pa.array(["NA", "NULL", ""]), ["NA", None, None]),
    ("string", pa.array([9.0, None]), ["9", None]),
    ("string", pa.array([240, None]), ["240", None]),
    ("string", pa.array(["x", None]).dictionary_encode(), ["x", None]),
    ("string", pa.array([7, None]).dictionary_encode(), ["7", None]),
    ("string", pa.array(["x"], pa.large_string()), ["x"]),
    ("string", pa.nulls(2), [None, None]),
    ("text", pa.array(["NULL", "", " as written\n", None]), ["NULL", None, " as written\n", None]),
    ("boolean", pa.array(["True", "0", ""]), [True, False, None]),
    ("boolean", pa.array([1, 0, None]), [True, False, None]),
    ("timestamp", pa.array(["2024-02-03 04:05:00", ""]), [DAY, None]),
    ("timestamp", pa.array(["2024-02-03T04:05:00Z"]), [DAY]),
    ("timestamp", pa.array([date(2024, 2, 3)]), [datetime(2024, 2, 3)]),
    ("timestamp", pa.array([DAY.replace(tzinfo=timezone(timedelta(hours=4)))]), [DAY - timedelta(hours=4)]),
    ("timestamp", pa.array([DAY], pa.timestamp("ns")), [DAY]),
]


@pytest.mark.parametrize(("declared", "found", "expected"), CASES, ids=[f"{case[0]} from {case[1].type}" for case in CASES])
def test_what_sources_deliver_becomes_the_declared_type(declared, found, expected):
    rows = conform(pa.table({"c": found}), columns={"c": Column(type=declared)}, where="the file")
    assert rows.schema.field("c").type == ARROW_TYPES[declared]
    assert rows["c"].to_pylist() == expected


@pytest.mark.parametrize(
    ("declared", "found"),
    [
        ("integer", ["many"]),
        ("integer", [1.5]),
        ("number", ["1,5"]),
        ("boolean", ["perhaps"]),
        ("timestamp", ["yesterday"]),
        ("timestamp", [20240101]),
    ],
)
def test_a_value_that_does_not_fit_names_column_and_type(declared, found):
    with pytest.raises(DataError, match=f"the file: column c is declared {declared}"):
        conform(pa.table({"c": found}), columns={"c": Column(type=declared)}, where="the file")


def test_a_missing_column_is_named_with_what_is_there():
    with pytest.raises(DataError, match=r"the file lacks column b; it has a, c"):
        conform(pa.table({"a": [1], "c": [2]}), columns={"a": Column(type="integer"), "b": Column(type="integer")}, where="the file")


def test_columns_that_are_not_declared_are_left_behind():
    rows = conform(
        pa.table({"secret": [1], "b": [2], "a": [3]}), columns={"a": Column(type="integer"), "b": Column(type="integer")}, where="x"
    )
    assert rows.column_names == ["a", "b"]


def test_a_picture_of_the_wrong_size_is_refused():
    columns = {"p": Column(type="image", shape=(2, 2))}
    assert conform(pa.table({"p": [[0, 1, 2, 3]]}), columns=columns, where="x")["p"].to_pylist() == [[0, 1, 2, 3]]
    with pytest.raises(DataError, match="2x2 has 4 numbers, one with 3 was found"):
        conform(pa.table({"p": [[0, 1, 2, 3], [0, 1, 2]]}), columns=columns, where="x")
