from __future__ import annotations

import subprocess
import sys
from datetime import datetime, timedelta

import pyarrow as pa
import pytest

from platform_assets.specs.dataset import DatasetSpec
from platform_assets.stages.validation.contract import check_names, validate

NOW = datetime(2024, 3, 1)
COLUMNS = {
    "id": {"type": "string"},
    "at": {"type": "timestamp"},
    "due": {"type": "timestamp"},
    "paid": {"type": "integer", "nullable": True, "minimum": 0, "maximum": 1},
    "colour": {"type": "string", "values": ["red", "blue"]},
    "price": {"type": "number"},
    "age": {"type": "integer", "nullable": True, "minimum": 0, "maximum": 120, "personal": {"method": "drop"}},
    "picture": {"type": "image", "shape": [1, 2], "minimum": 0, "maximum": 16},
}
ROWS = 40


def spec(**contract):
    return DatasetSpec.model_validate(
        {
            "name": "shop",
            "owner": "team:x",
            "source": {"kind": "provided"},
            "key": "id",
            "event_time": "at",
            "label": {"column": "paid", "known_at": "due"},
            "columns": COLUMNS,
            "contract": {"max_age": "10d", **contract},
        }
    )


def good_rows(**changes):
    columns = {
        "id": [f"id-{n}" for n in range(ROWS)],
        "at": [NOW - timedelta(days=n) for n in range(ROWS)],
        "due": [NOW - timedelta(days=n - 5) for n in range(ROWS)],
        "paid": [None if n < 5 else n % 2 for n in range(ROWS)],
        "colour": ["red", "blue"] * (ROWS // 2),
        "price": [1.5] * ROWS,
        "age": [30, None] * (ROWS // 2),
        "picture": [[0.0, 16.0]] * ROWS,
    }
    for name, change in changes.items():
        columns[name] = [change.get(n, value) for n, value in enumerate(columns[name])]
    types = {"at": pa.timestamp("us"), "due": pa.timestamp("us"), "paid": pa.int64(), "age": pa.int64(), "picture": pa.list_(pa.float32())}
    return pa.table({name: pa.array(values, types.get(name)) for name, values in columns.items()})


def held(rows, *, previous_rows=None, now=NOW, **contract):
    verdict = validate(spec(**contract), rows, previous_rows=previous_rows, now=now)
    assert [check.name for check in verdict.checks] == check_names(spec(**contract))
    return verdict, {check.name: check for check in verdict.checks}


def test_good_rows_pass_every_check():
    verdict, checks = held(good_rows())
    assert verdict.good
    assert all(check.passed for check in checks.values())
    assert verdict.offending_keys == ()


@pytest.mark.parametrize(
    ("change", "check", "sample"),
    [
        ({"colour": {3: None}}, "required_values_present", "'id-3': colour = None"),
        ({"at": {3: None}}, "required_values_present", "'id-3': at = None"),
        ({"paid": {8: None}}, "required_values_present", "'id-8': paid = None"),
        ({"paid": {8: 2}}, "values_within_ranges", "'id-8': paid = 2"),
        ({"price": {3: float("inf")}}, "values_within_ranges", "'id-3': price = inf"),
        ({"age": {3: 300}}, "values_within_ranges", "'id-3': age = hidden"),
        ({"picture": {3: [-1.0, 3.0]}}, "values_within_ranges", "'id-3': picture = a picture of (1, 2)"),
        ({"picture": {3: None}}, "required_values_present", "'id-3': picture = a picture of (1, 2)"),
        ({"colour": {3: "green"}}, "values_in_declared_sets", "'id-3': colour = 'green'"),
    ],
)
def test_an_offending_row_is_counted_and_sampled_without_personal_values(change, check, sample):
    verdict, checks = held(good_rows(**change))
    assert not verdict.good
    assert {name for name, result in checks.items() if not result.passed} == {check}
    assert (checks[check].unexpected_count, checks[check].samples) == (1, (sample,))
    assert verdict.offending_keys == (sample.split("'")[1],)


def test_doubled_keys_are_found():
    verdict, checks = held(good_rows(id={3: "id-4"}))
    assert checks["keys_are_unique"].unexpected_count == 2
    assert verdict.offending_keys == ("id-4",)


def test_offending_rows_are_set_aside_where_declared_while_they_are_few():
    rows = good_rows(colour={3: "green"})
    verdict, checks = held(rows, on_violation="quarantine", max_quarantined=0.05)
    assert verdict.good
    assert verdict.offending_keys == ("id-3",)
    assert not checks["values_in_declared_sets"].passed
    assert not checks["values_in_declared_sets"].blocking
    too_many, checks = held(rows, on_violation="quarantine", max_quarantined=0.01)
    assert not too_many.good
    assert checks["values_in_declared_sets"].blocking


def test_a_row_without_a_key_cannot_be_set_aside():
    verdict, _ = held(good_rows(id={3: None}), on_violation="quarantine", max_quarantined=0.5)
    assert not verdict.good


def test_missing_extra_and_mistyped_columns_block_and_the_rest_is_not_asked():
    verdict, checks = held(good_rows().drop_columns(["colour"]).append_column("surprise", pa.array([1] * ROWS)))
    assert not verdict.good
    assert checks["schema_matches"].sentence == "missing colour; not declared surprise"
    verdict, checks = held(good_rows().set_column(5, "price", pa.array(["1"] * ROWS)))
    assert checks["types_match"].sentence == "price is string, declared number"
    assert "not asked" in checks["values_within_ranges"].sentence


def test_old_data_block():
    verdict, checks = held(good_rows(), now=NOW + timedelta(days=11))
    assert not verdict.good
    assert (
        checks["data_is_fresh"].sentence == "newest at is 2024-03-01T00:00:00, 11 days older than the data's clock; at most 10d is allowed"
    )


@pytest.mark.parametrize(
    ("previous", "contract", "good"), [(80, {}, True), (81, {}, True), (90, {}, False), (None, {"min_rows": 41}, False)]
)
def test_a_shrunken_or_small_table_blocks(previous, contract, good):
    verdict, checks = held(good_rows(), previous_rows=previous, **contract)
    assert checks["volume_is_plausible"].passed is good
    assert verdict.good is good


def test_no_rows_at_all_are_refused_in_a_sentence():
    verdict, checks = held(good_rows().slice(0, 0))
    assert not verdict.good
    assert "no row has a at" in checks["data_is_fresh"].sentence
    assert checks["values_within_ranges"].passed


def test_labels_that_nobody_knows_yet_are_not_missed():
    verdict, _ = held(good_rows(paid=dict.fromkeys(range(ROWS))), now=NOW - timedelta(days=60))
    assert verdict.good


def test_check_names_are_told_without_loading_great_expectations():
    program = (
        "import sys, platform_assets.stages.validation.contract; sys.exit('great_expectations' in sys.modules or 'pandas' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
    bare = spec(max_age=None).model_copy(update={"columns": {"id": spec().columns["id"], "at": spec().columns["at"]}})
    assert check_names(bare) == ["schema_matches", "types_match", "required_values_present", "keys_are_unique", "volume_is_plausible"]
