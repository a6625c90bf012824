"""Rows of named columns become arrays, or a sentence that names field and row."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from platform_assets.errors import RequestError
from platform_assets.specs.records import Feature, FeatureSchema
from platform_assets.stages.serving.columns import RowReader, as_time, days_since_epoch, rows_of_request, stack
from resources.testing.serving import TINY_ROW, TINY_SCHEMA

READER = RowReader(TINY_SCHEMA, model="tiny")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
ROWS = st.fixed_dictionaries(
    {},
    optional={
        "lead_time": st.none() | st.floats(width=32, allow_nan=False, allow_infinity=False),
        "adr": st.none() | st.integers(-1000, 1000),
        "arrival_date": st.none() | st.datetimes().map(lambda moment: moment.isoformat()),
        "market_segment": st.none() | st.booleans() | st.text(max_size=5),
        "booking_id": st.none() | st.integers(0, 9) | st.text(max_size=5),
    },
)


def test_values_land_in_schema_order_with_missing_ones_marked():
    batch = READER.encode([TINY_ROW, {"market_segment": True}])
    assert batch.numeric.dtype == np.float32
    np.testing.assert_allclose(batch.numeric[0], [30, 80.5, days_since_epoch("2016-07-01"), 90])
    assert np.isnan(batch.numeric[1]).all()
    assert batch.categorical.tolist() == [["Online TA"], ["true"]]
    assert READER.encode([{"market_segment": None}]).categorical.tolist() == [[""]]


def test_a_zone_is_honoured_and_none_means_utc():
    assert (
        days_since_epoch("1970-01-02T04:00:00+04:00") == days_since_epoch("1970-01-02T00:00:00Z") == days_since_epoch("1970-01-02") == 1.0
    )
    assert as_time(days_since_epoch("2016-07-01T12:34:56")) == "2016-07-01T12:34:56"


@settings(suppress_health_check=[HealthCheck.too_slow], max_examples=50, deadline=None)
@given(st.lists(ROWS, min_size=1, max_size=3))
def test_a_row_alone_encodes_as_it_does_in_a_batch(rows):
    together, alone = READER.encode(rows), stack([READER.encode([row]) for row in rows])
    np.testing.assert_array_equal(together.numeric, alone.numeric)
    assert together.categorical.tolist() == alone.categorical.tolist()
    assert READER.encode(READER.decode(together)).categorical.tolist() == together.categorical.tolist()


@given(JSON)
def test_any_json_is_read_or_refused_in_a_sentence(body):
    said = "read"
    try:
        READER.encode(rows_of_request(body))
    except RequestError as error:
        said = str(error)
    assert said


@given(st.dictionaries(st.sampled_from(sorted(READER.known)), JSON, max_size=7))
def test_any_value_in_a_known_column_is_read_or_its_field_is_named(row):
    said, batch = "", None
    try:
        batch = READER.encode([row])
    except RequestError as error:
        said = str(error)
    assert not np.isinf(batch.numeric).any() if batch else any(f"field '{name}', row 0" in said for name in row)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"lead_time": "soon"}, "field 'lead_time', row 1: found text 'soon'; right would be a number or null"),
        ({"lead_time": True}, "field 'lead_time', row 1: found boolean true; right would be a number or null"),
        ({"lead_time": 1e39}, "field 'lead_time', row 1: found number 1e+39; right would be a number within the range"),
        ({"market_segment": 7}, "field 'market_segment', row 1: found number 7; right would be text, true, false or null"),
        ({"arrival_date": "July"}, "field 'arrival_date', row 1: found text 'July'; right would be an ISO 8601 time"),
        ({"arrival_date": 16983}, "field 'arrival_date', row 1: found number 16983"),
        ({"leed_time": 1}, "field 'leed_time', row 1: tiny has no such column; did you mean 'lead_time'?"),
        ({"booking_id": 1.5}, "field 'booking_id', row 1: found number 1.5; right would be text, an integer or null"),
        ({"booking_date": "then"}, "field 'booking_date', row 1: found text 'then'"),
        (["lead_time"], "row 1: found a list of 1; an object of column names and values would be right"),
    ],
)
def test_a_fault_names_field_row_what_was_found_and_what_is_right(row, said):
    with pytest.raises(RequestError) as caught:
        READER.encode([TINY_ROW, row])
    assert said in str(caught.value)


def test_an_image_is_a_flat_list_of_its_size():
    schema = FeatureSchema((Feature("pixels", "image", "v", "id", size=4),), "digit", ("0", "1"), "id", "seen_at")
    reader = RowReader(schema, model="digits")
    assert reader.encode([{"pixels": [0, 1, 2.5, 3]}]).image.tolist() == [[0, 1, 2.5, 3]]
    for wrong in ([1, 2, 3], [1, 2, 3, "4"], [1, 2, 3, 1e39], None):
        with pytest.raises(RequestError, match="field 'pixels', row 0"):
            reader.encode([{"pixels": wrong}])


def test_columns_and_rows_say_the_same():
    rows = [{"lead_time": 1, "adr": 2}, {"lead_time": 3, "adr": 4}]
    assert rows_of_request({"columns": {"lead_time": [1, 3], "adr": [2, 4]}}) == rows
    with pytest.raises(RequestError, match="'adr' has 1 values, field 'lead_time' has 2"):
        rows_of_request({"columns": {"lead_time": [1, 3], "adr": [2]}})


TEXTS = RowReader(FeatureSchema((Feature("review", "text", "v", "id"),), "label", ("0", "1"), "id", "at"), model="texts")


def test_a_text_goes_in_as_it_was_written_and_comes_out_so():
    batch = TEXTS.encode([{"review": "  الغرفة\n\x00😀 "}, {"review": None}, {}])
    assert batch.text.tolist() == [["  الغرفة\n\x00😀 "], [""], [""]]
    assert [row["review"] for row in TEXTS.decode(batch)] == ["  الغرفة\n\x00😀 ", None, None]
    assert TEXTS.tensor_names == ("text",)
    assert stack([batch, batch.slice(0, 1)]).text.shape == (4, 1)


@pytest.mark.parametrize("wrong", [4, True, ["a"], "half of a pair \ud83d", "x" * 100_001])
def test_what_is_no_text_is_refused_by_its_field(wrong):
    with pytest.raises(RequestError, match=r"field 'review', row 1: found .*; right would be text of at most 100,000 characters, or null"):
        TEXTS.encode([{"review": "x" * 100_000}, {"review": wrong}])
