from __future__ import annotations

import hashlib
import hmac

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from platform_assets.errors import StageError
from platform_assets.specs.dataset import Column
from platform_assets.stages.governance.protection import protect

KEY = b"a key of thirty-two bytes, or so"


def column(kind, **personal):
    return Column.model_validate({"type": kind, "personal": personal})


def protected(values, kind, **personal):
    return protect(pa.table({"c": values, "other": values}), columns={"c": column(kind, **personal), "other": Column(type=kind)}, key=KEY)


def test_a_dropped_column_is_gone_and_the_others_stay():
    assert protected(pa.array(["x"]), "string", method="drop").to_pydict() == {"other": ["x"]}


@given(st.lists(st.text(max_size=4) | st.none(), max_size=20))
def test_pseudonyms_are_equal_exactly_where_values_are_and_are_hmac_sha_256(values):
    found = protected(pa.array(values, pa.string()), "string", method="pseudonymise")["c"].to_pylist()
    assert found == [None if value is None else hmac.new(KEY, value.encode(), hashlib.sha256).hexdigest() for value in values]
    assert len(set(found)) == len(set(values))


def test_another_key_gives_other_pseudonyms():
    rows, columns = pa.table({"c": ["guest"]}), {"c": column("string", method="pseudonymise")}
    assert protect(rows, columns=columns, key=KEY) != protect(rows, columns=columns, key=KEY[::-1])


@pytest.mark.parametrize(("kind", "values"), [("integer", [7, None]), ("number", [0.5, None]), ("boolean", [True, None])])
def test_any_type_can_be_pseudonymised(kind, values):
    first, second = protected(pa.array(values), kind, method="pseudonymise")["c"].to_pylist()
    assert len(first) == 64
    assert second is None


@given(st.lists(st.integers(-10_000, 10_000) | st.none(), max_size=20), st.integers(1, 50))
def test_generalised_integers_are_the_floor_of_their_bin(values, width):
    found = protected(pa.array(values, pa.int64()), "integer", method="generalise", width=width)["c"]
    assert found.type == pa.int64()
    assert found.to_pylist() == [None if value is None else value // width * width for value in values]


@given(st.lists(st.floats(-1e6, 1e6), max_size=20), st.floats(0.5, 100))
def test_generalised_numbers_lie_in_their_bin(values, width):
    found = protected(pa.array(values, pa.float64()), "number", method="generalise", width=width)["c"].to_pylist()
    assert all(low <= value + 1e-6 and value < low + width + 1e-6 for low, value in zip(found, values, strict=True))


def test_a_column_that_is_not_there_is_no_error_and_a_short_key_is():
    assert protect(pa.table({"a": [1]}), columns={"b": column("string", method="drop")}, key=KEY).column_names == ["a"]
    with pytest.raises(StageError, match="has 3 bytes; it needs at least 16"):
        protect(pa.table({"a": [1]}), columns={}, key=b"abc")
