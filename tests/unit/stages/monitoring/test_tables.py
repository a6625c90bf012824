from datetime import datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest

from platform_assets.errors import DataError
from platform_assets.specs.model import MonitoringSpec
from platform_assets.specs.record_json import read_record, to_json
from platform_assets.specs.records import DriftReport, Feature, FeatureSchema
from platform_assets.stages.monitoring.tables import compare_tables

SPEC = MonitoringSpec()


def table(seed, rows=3000, *, price=0.0, cancelled=0.3):
    rng = np.random.default_rng(seed)
    return pa.table({
        "booked": pa.array([datetime(2020, 1, 1) + timedelta(minutes=n) for n in range(rows)], pa.timestamp("us")),
        "price": rng.normal(100 + price, 10, rows),
        "guests": rng.integers(1, 5, rows),
        "agent": pa.array(rng.integers(0, 9, rows).astype(str)).dictionary_encode(),
        "member": rng.random(rows) < 0.5,
        "note": [" ".join(rng.choice(["late", "quiet", "high", "floor"], 5)) for _ in range(rows)],
        "cancelled": rng.choice(["no", "yes"], rows, p=[1 - cancelled, cancelled]),
    })  # fmt: skip


def moved(found):
    return {column.column for column in found.report.windows[0].moved}


def test_a_table_like_the_other_has_not_moved_and_what_moved_is_named():
    assert moved(compare_tables(table(1, 9000), table(2), spec=SPEC)) == set()
    found = compare_tables(table(1, 9000), table(2, price=5), spec=SPEC)
    assert moved(found) == {"price"}
    assert found.left_out == {"booked": "timestamp[us] moves by nature"}
    assert read_record(DriftReport, to_json(found.report)) == found.report


def test_columns_of_one_table_alone_are_named_and_numbers_of_one_reader_are_words_of_another():
    other = table(2).drop_columns("guests").append_column("extra", pa.array(np.zeros(3000)))
    other = other.set_column(other.column_names.index("agent"), "agent", other["agent"].cast(pa.string()).cast(pa.int64()))
    found = compare_tables(table(1, 9000), other, spec=SPEC)
    assert found.left_out["guests"] == "only the reference has it"
    assert found.left_out["extra"] == "only the current table has it"
    assert "agent" not in moved(found)
    assert "agent" in {column.column for column in found.report.windows[0].columns}


def test_a_release_says_what_is_read_what_counts_and_where_the_labels_are():
    features = (Feature("price", "numeric", "v", "id"), Feature("member", "category", "v", "id"), Feature("agent", "category", "v", "id"))
    schema = FeatureSchema(features, "cancelled", ("no", "yes"), "id", "booked")
    importance = {"price": 0.0, "member": 0.6, "agent": 0.4}
    given = {"spec": SPEC, "schema": schema, "importance": importance}
    found = compare_tables(table(1, 9000), table(2, price=5), **given)
    assert (found.report.windows[0].harmless, moved(found)) == (True, {"price"})
    assert found.left_out["note"] == "the model does not read it"
    assert moved(compare_tables(table(1, 9000), table(2, cancelled=0.6), **given)) == {"label"}


def test_tables_that_cannot_be_compared_are_refused_with_the_reason():
    with pytest.raises(DataError, match="the current table has no rows"):
        compare_tables(table(1), table(1).slice(0, 0), spec=SPEC)
    with pytest.raises(DataError, match=r"no column in common that can be compared \(booked: timestamp"):
        compare_tables(table(1).select(["booked"]), table(2).select(["booked"]), spec=SPEC)
    with pytest.raises(DataError, match="no column in common"):
        compare_tables(table(1).select(["price"]), table(2).select(["agent"]), spec=SPEC)


def test_two_small_tables_are_compared_without_a_past_to_calibrate_on():
    assert moved(compare_tables(table(1, 200), table(2, 200, price=20), spec=SPEC)) >= {"price"}
    assert moved(compare_tables(table(1, 1), table(2, 1), spec=SPEC)) == set()
