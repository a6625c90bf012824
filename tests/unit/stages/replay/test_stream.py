import numpy as np
import pyarrow as pa
import pytest
from drifting import drifting_table

from platform_assets.errors import DataError
from platform_assets.stages.replay.stream import open_stream


@pytest.mark.parametrize("target", ["binary", "multiclass", "regression"])
def test_the_kind_is_told_from_the_target(target):
    stream = open_stream(drifting_table("stable", rows=3000, target=target), time="at", target="y")
    assert stream.kind == target
    assert stream.columns == ("x0", "x1", "x2", "x3", "x4", "region")
    assert stream.categories == (5,)


def test_rows_are_put_in_order_of_time():
    table = drifting_table("stable", rows=3000)
    turned = table.take(np.arange(3000)[::-1])
    assert np.array_equal(open_stream(turned, time="at", target="y").values, open_stream(table, time="at", target="y").values)


def test_columns_that_tell_the_answer_or_the_time_are_left_out_and_named():
    table = drifting_table("stable", rows=3000, target="regression")
    amount = table["y"].to_numpy()
    half = np.random.default_rng(0).normal(size=3000) * 30
    leaky = (
        table.append_column("part", pa.array(half))
        .append_column("rest", pa.array(amount - half))
        .append_column("row", pa.array(np.arange(3000)))
    )
    stream = open_stream(leaky, time="at", target="y")
    assert {suspect.column for suspect in stream.left_out} == {"part", "rest", "row"}
    told = drifting_table("stable", rows=3000)
    words = pa.array(np.where(told["y"].to_numpy(zero_copy_only=False), "came", "left"))
    assert [suspect.column for suspect in open_stream(told.append_column("state", words), time="at", target="y").left_out] == ["state"]


def test_a_date_counts_from_the_rows_own_time():
    table = drifting_table("stable", rows=3000)
    shifted = pa.array(table["at"].to_numpy() - np.timedelta64(3, "D"))
    stream = open_stream(table.append_column("ordered", shifted), time="at", target="y")
    assert np.all(stream.values[:, stream.columns.index("ordered")] == -3.0)


def test_categories_are_numbered_without_a_look_ahead():
    table = drifting_table("stable", rows=3000)
    region = np.array(table["region"].to_pylist(), dtype=object)
    other = region.copy()
    other[2000:] = "moon"
    numbers = [
        open_stream(table.set_column(table.column_names.index("region"), "region", pa.array(words.tolist())), time="at", target="y").values[
            :2000, 5
        ]
        for words in (region, other)
    ]
    assert np.array_equal(*numbers)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"time": "when"}, "--time when: the table has no such column; it has at, x0"),
        ({"target": "outcome"}, "--target outcome: the table has no such column"),
        ({"target": "at"}, "--time and --target both name at"),
        ({"without": ["moon"]}, "--without moon"),
        ({"window_rows": 1000}, "3000 rows make 3 windows of 1000; a replay needs 10"),
        ({"time": "region"}, "'north' is no time|'south' is no time|'west' is no time"),
    ],
)
def test_a_wrong_question_is_answered_in_one_sentence(changes, sentence):
    with pytest.raises(DataError, match=sentence):
        open_stream(drifting_table("stable", rows=3000), **{"time": "at", "target": "y", **changes})
