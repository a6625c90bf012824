"""The contestants of the point-in-time join answer alike, and a difference is not overlooked."""

from __future__ import annotations

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from platform_assets.errors import FalajError
from platform_assets.main_job.bench import feast_join


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two thousand rows, joined by each contestant."""
    folder = tmp_path_factory.mktemp("bench") / "inputs"
    feast_join.write_inputs(folder, rows=2000)
    for name, prepare in feast_join.CONTESTANTS.items():
        pq.write_table(prepare(folder)(), folder / f"{name}.parquet")
    return folder


def test_three_ways_of_joining_give_equal_rows(folder):
    assert pq.read_metadata(folder / "ours.parquet").num_rows == 2000
    feast_join.assert_equal(folder, "ours", "file_store")
    feast_join.assert_equal(folder, "ours", "bare_duckdb")


def test_one_wrong_value_makes_the_comparison_fail(folder):
    found = pq.read_table(folder / "ours.parquet")
    place = found.column_names.index("v1_3")
    pq.write_table(found.set_column(place, "v1_3", pc.negate(found["v1_3"])), folder / "ours_changed.parquet")
    with pytest.raises(FalajError, match="ours_changed and bare_duckdb joined the same rows and differ"):
        feast_join.assert_equal(folder, "ours_changed", "bare_duckdb")
