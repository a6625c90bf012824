"""Views against a brute-force reading of their definition."""

from __future__ import annotations

import random
from datetime import datetime, timedelta
from math import isclose

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from platform_assets.errors import DataError
from platform_assets.specs.dataset import DatasetSpec
from platform_assets.stages.features.views import view_rows

EPOCH = datetime(1970, 1, 1)
T0 = datetime(2026, 1, 1, 7, 30)
HOUR = timedelta(hours=1)

DATASET = DatasetSpec.model_validate(
    {
        "name": "stays",
        "owner": "team:test",
        "source": {"kind": "provided"},
        "key": "id",
        "event_time": "at",
        "label": {"column": "gone", "known_at": "left_at"},
        "columns": {
            "id": {"type": "integer"},
            "at": {"type": "timestamp"},
            "left_at": {"type": "timestamp"},
            "segment": {"type": "string", "nullable": True},
            "price": {"type": "number", "nullable": True},
            "nights": {"type": "integer", "nullable": True},
            "repeat": {"type": "boolean", "nullable": True},
            "guest": {"type": "integer", "personal": {"method": "pseudonymise"}},
            "gone": {"type": "boolean", "nullable": True},
        },
        "views": {
            "stay": {"kind": "columns", "entity": "id", "columns": ["price", "nights", "repeat", "left_at", "segment"]},
            "by_segment": {"kind": "columns", "entity": "segment", "columns": ["price"]},
            "demand": {
                "kind": "aggregates",
                "entity": "segment",
                "every": "3h",
                "aggregates": {"price_7h": {"mean": "price", "window": "7h"}, "gone_6h": {"mean": "gone", "window": "6h"}},
            },
        },
    }
)

ROW = st.tuples(
    st.integers(0, 48),  # event, half hours after T0
    st.integers(0, 20),  # label known, half hours after the event
    st.sampled_from(["web", "desk", None]),
    st.one_of(st.none(), st.integers(0, 1000).map(lambda cents: cents / 7)),
    st.sampled_from([True, False, None]),
)
ROWS = st.lists(ROW, min_size=1, max_size=40)


def stays(rows):
    at = [T0 + row[0] * HOUR / 2 for row in rows]
    return pa.table(
        {
            "id": pa.array(range(len(rows)), pa.int64()),
            "at": pa.array(at, pa.timestamp("us")),
            "left_at": pa.array([time + row[1] * HOUR / 2 for time, row in zip(at, rows, strict=True)], pa.timestamp("us")),
            "segment": pa.array([row[2] for row in rows], pa.string()),
            "price": pa.array([row[3] for row in rows], pa.float64()),
            "nights": pa.array([row[1] for row in rows], pa.int64()),
            "repeat": pa.array([row[4] for row in rows], pa.bool_()),
            "gone": pa.array([row[4] for row in rows], pa.bool_()),
        }
    )


def mean(values):
    return sum(values) / len(values) if values else None


def demand_by_definition(rows):
    """{(segment, grid time): (mean price of 7 h, mean label of 6 h)}."""
    rows = [row for row in stays(rows).to_pylist() if row["segment"] is not None]
    grid, answers = 3 * HOUR, {}
    for segment in {row["segment"] for row in rows}:
        mine = [row for row in rows if row["segment"] == segment]
        time = EPOCH + ((min(row["at"] for row in mine) - EPOCH) // grid + 1) * grid
        while time < max(row["at"] for row in rows):
            prices = [row["price"] for row in mine if time - 7 * HOUR <= row["at"] < time and row["price"] is not None]
            gone = [row["gone"] for row in mine if time - 6 * HOUR < row["left_at"] <= time and row["gone"] is not None]
            answers[segment, time] = (mean(prices), mean(gone))
            time += grid
    return answers


def same(left, right):
    return left == right if left is None or right is None else isclose(left, right, rel_tol=1e-12)


@settings(max_examples=60, deadline=None)
@given(rows=ROWS)
def test_aggregates_are_trailing_means_as_defined(rows):
    expected = demand_by_definition(rows)
    found = {
        (row["segment"], row["event_timestamp"]): (row["price_7h"], row["gone_6h"])
        for row in view_rows(stays(rows), dataset=DATASET, view="demand").to_pylist()
    }
    assert found.keys() == expected.keys()
    assert all(same(*pair) for key in found for pair in zip(found[key], expected[key], strict=True))


@settings(max_examples=60, deadline=None)
@example(rows=[(0, 0, "web", None, True), (45, 0, "web", None, True)], newer=[(0, 0, "web", None, False)])
@given(rows=ROWS, newer=ROWS)
def test_rows_that_come_on_time_change_no_earlier_grid_point_by_a_single_bit(rows, newer):
    newest = max(row[0] for row in rows)
    on_time = rows + [(row[0] + newest, *row[1:]) for row in newer]
    before = view_rows(stays(rows), dataset=DATASET, view="demand").to_pylist()
    after = {(row["segment"], row["event_timestamp"]): row for row in view_rows(stays(on_time), dataset=DATASET, view="demand").to_pylist()}
    assert all(after[row["segment"], row["event_timestamp"]] == row for row in before)


@pytest.mark.parametrize("view", ["stay", "by_segment", "demand"])
@settings(max_examples=25, deadline=None)
@given(rows=ROWS, seed=st.integers(0, 5))
def test_the_order_of_rows_does_not_matter(view, rows, seed):
    table = stays(rows)
    shuffled = table.take(pa.array(random.Random(seed).sample(range(len(rows)), len(rows))))
    assert view_rows(shuffled, dataset=DATASET, view=view).equals(view_rows(table, dataset=DATASET, view=view))


def test_a_columns_view_stands_at_its_event_with_the_types_of_its_kinds():
    found = view_rows(stays([(2, 4, "web", 1.5, True), (0, 1, None, None, False)]), dataset=DATASET, view="stay")
    assert found.schema.types == [pa.string(), pa.timestamp("us"), pa.float64(), pa.float64(), pa.string(), pa.timestamp("us"), pa.string()]
    assert found.to_pylist()[1] == {
        "id": "0", "event_timestamp": T0 + HOUR, "price": 1.5, "nights": 4.0, "repeat": "true", "left_at": T0 + 3 * HOUR, "segment": "web",
    }  # fmt: skip
    assert [row["repeat"] for row in found.to_pylist()] == ["false", "true"]


def test_rows_without_an_entity_are_left_out():
    assert view_rows(stays([(0, 0, None, 1.0, None), (1, 0, "web", 2.0, None)]), dataset=DATASET, view="by_segment")[
        "segment"
    ].to_pylist() == ["web"]


def test_a_silent_entity_goes_on_with_nulls():
    rows = view_rows(stays([(0, 0, "web", 1.0, True), (48, 0, "desk", 2.0, True)]), dataset=DATASET, view="demand").to_pylist()
    web = [(row["price_7h"], row["gone_6h"]) for row in rows if row["segment"] == "web"]
    assert web[0] == (1.0, 1.0)
    assert web[-1] == (None, None)
    assert len(web) == 8


@pytest.mark.parametrize("view", ["stay", "by_segment", "demand"])
def test_no_rows_give_an_empty_view_of_the_same_columns(view):
    full = view_rows(stays([(0, 0, "web", 1.0, True)]), dataset=DATASET, view=view)
    assert view_rows(stays([(0, 0, "web", 1.0, True)]).slice(0, 0), dataset=DATASET, view=view).schema == full.schema


def test_a_missing_column_is_named():
    with pytest.raises(DataError, match="needs the columns left_at, price"):
        view_rows(stays([(0, 0, "web", 1.0, True)]).drop_columns(["price", "left_at"]), dataset=DATASET, view="demand")
