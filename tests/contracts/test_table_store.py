"""One suite for every `TableStore`: versions, idempotence, merging, and what a killed or a second writer leaves behind."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from s3_process import own_prefix

from platform_assets.errors import DataError
from platform_assets.specs.records import TablePin
from resources.delta_tables import DeltaTableStore
from resources.testing.tables import MemoryTableStore

STORES = ["memory", "delta"]
TABLE = "dataset/shop/ingested"


def make_store(kind, root):
    return MemoryTableStore() if kind == "memory" else DeltaTableStore(root)


@pytest.fixture(params=[*STORES, "delta_s3"])
def store(request, tmp_path):
    if request.param == "delta_s3":
        return DeltaTableStore("tables", store=own_prefix(request.getfixturevalue("s3_server")))
    return make_store(request.param, tmp_path / "a folder" / "tables")


def rows(values):
    """A table of {key: value}; `when` and `picture` try the awkward types."""
    return pa.table(
        {
            "id": pa.array(list(values), pa.string()),
            "value": pa.array(list(values.values()), pa.int64()),
            "when": pa.array([datetime(2024, 1, 1)] * len(values), pa.timestamp("us")),
            "picture": pa.array([[1.0, 0.5]] * len(values), pa.list_(pa.float32())),
        }
    )


def contents(store, pin):
    table = store.read(pin, columns=["id", "value"])
    return dict(zip(table["id"].to_pylist(), table["value"].to_pylist(), strict=True))


def test_a_table_that_was_never_written_has_no_pin(store):
    assert store.pin(TABLE) is None


def test_a_first_merge_makes_the_table(store):
    assert store.merge(TABLE, rows({"a": 1, "b": 2}), key="id") == (2, 0)
    pin = store.pin(TABLE)
    assert (pin.version, pin.rows) == (0, 2)
    assert store.read(pin).sort_by("id") == rows({"a": 1, "b": 2})


def test_the_same_rows_again_make_no_new_version(store):
    store.merge(TABLE, rows({"a": 1, "b": 2}), key="id")
    before = store.pin(TABLE)
    assert store.merge(TABLE, rows({"b": 2, "a": 1}), key="id") == (0, 0)
    assert store.append(TABLE, rows({"b": 7}), key="id") == 0
    assert store.pin(TABLE) == before


def test_a_merge_inserts_and_replaces_in_one_version_and_leaves_the_old_one_readable(store):
    store.merge(TABLE, rows({"a": 1, "b": 2}), key="id")
    first = store.pin(TABLE)
    assert store.merge(TABLE, rows({"b": 3, "c": None}), key="id") == (1, 1)
    second = store.pin(TABLE)
    assert second.version == first.version + 1
    assert contents(store, first) == {"a": 1, "b": 2}
    assert contents(store, second) == {"a": 1, "b": 3, "c": None}


def test_of_several_rows_of_one_key_a_merge_takes_the_last_and_an_append_the_first(store):
    doubled = pa.concat_tables([rows({"a": 1}), rows({"a": 2})])
    assert store.merge("merged", doubled, key="id") == (1, 0)
    assert contents(store, store.pin("merged")) == {"a": 2}
    assert store.append("appended", doubled, key="id") == 1
    assert contents(store, store.pin("appended")) == {"a": 1}


def test_an_append_adds_only_keys_that_are_not_there(store):
    assert store.append(TABLE, rows({"a": 1}), key="id") == 1
    assert store.append(TABLE, rows({"a": 9, "b": 2}), key="id") == 1
    assert contents(store, store.pin(TABLE)) == {"a": 1, "b": 2}


def test_replacing_with_equal_content_in_another_order_makes_no_version(store):
    first = store.replace(TABLE, rows({"a": 1, "b": 2}))
    assert store.replace(TABLE, rows({"b": 2, "a": 1})) == first
    second = store.replace(TABLE, rows({"c": 3}))
    assert (second.version, second.rows) == (first.version + 1, 1)
    assert contents(store, second) == {"c": 3}


def test_replacing_may_change_the_columns(store):
    store.replace(TABLE, rows({"a": 1}))
    pin = store.replace(TABLE, pa.table({"id": ["a"], "value": ["now a text"]}))
    assert store.read(pin).column_names == ["id", "value"]


def test_a_new_column_is_null_in_rows_from_before(store):
    store.merge(TABLE, rows({"a": 1}), key="id")
    more = rows({"b": 2}).append_column("colour", pa.array(["red"]))
    store.merge(TABLE, more, key="id")
    found = store.read(store.pin(TABLE), columns=["id", "colour"]).sort_by("id")
    assert found["colour"].to_pylist() == [None, "red"]


def test_a_column_that_is_no_longer_delivered_becomes_null_in_the_rows_that_change(store):
    store.merge(TABLE, rows({"a": 1, "b": 2}), key="id")
    assert store.merge(TABLE, rows({"a": 3}).drop_columns(["picture"]), key="id") == (0, 1)
    found = store.read(store.pin(TABLE)).sort_by("id")
    assert found["picture"].to_pylist() == [None, [1.0, 0.5]]
    assert found["value"].to_pylist() == [3, 2]


def test_dictionaries_large_and_fixed_types_and_nanoseconds_are_kept_as_plain_ones(store):
    plain = rows({"a": 1})
    odd = plain.cast(
        pa.schema({"id": pa.large_string(), "value": pa.int64(), "when": pa.timestamp("ns"), "picture": pa.list_(pa.float32(), 2)})
    )
    odd = odd.set_column(0, "id", plain["id"].dictionary_encode())
    pin = store.replace(TABLE, odd)
    assert store.read(pin) == plain
    assert store.merge(TABLE, plain, key="id") == (0, 0)
    assert store.replace(TABLE, plain) == pin


def test_a_column_that_changes_its_type_is_refused_by_name(store):
    store.merge(TABLE, rows({"a": 1}), key="id")
    wrong = rows({"b": 2}).drop_columns(["value"]).append_column("value", pa.array(["two"]))
    with pytest.raises(DataError, match=r"column value is stored as int64 and arrives as string"):
        store.merge(TABLE, wrong, key="id")


def test_an_empty_merge_changes_nothing(store):
    store.merge(TABLE, rows({"a": 1}), key="id")
    before = store.pin(TABLE)
    assert store.merge(TABLE, rows({}), key="id") == (0, 0)
    assert store.pin(TABLE) == before


def test_a_version_or_column_that_is_not_there_is_a_clear_error(store):
    pin = store.replace(TABLE, rows({"a": 1}))
    with pytest.raises(DataError, match="version 7"):
        store.read(TablePin(TABLE, 7, 1, ""))
    with pytest.raises(DataError, match="lacks colour"):
        store.read(pin, columns=["colour"])


def test_equal_content_has_an_equal_hash_in_every_store(tmp_path):
    pins = []
    for kind in STORES:
        store = make_store(kind, tmp_path / kind)
        store.merge(TABLE, rows({"a": 1}), key="id")
        store.merge(TABLE, rows({"b": 2, "a": 5}), key="id")
        pins.append(store.pin(TABLE))
    assert pins[0].content_hash == pins[1].content_hash


DELIVERIES = st.lists(st.dictionaries(st.sampled_from("abcdef"), st.none() | st.integers(-3, 3), max_size=6), min_size=1, max_size=4)


@pytest.mark.parametrize("kind", STORES)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(deliveries=DELIVERIES)
def test_merging_equals_updating_a_dictionary_and_merging_twice_equals_once(kind, deliveries, tmp_path_factory):
    store = make_store(kind, tmp_path_factory.mktemp("tables"))
    expected = {}
    for delivery in deliveries:
        new = len(set(delivery) - set(expected))
        changed = sum(1 for key, value in delivery.items() if key in expected and expected[key] != value)
        assert store.merge(TABLE, rows(delivery), key="id") == (new, changed)
        expected |= delivery
        pin = store.pin(TABLE)
        assert store.merge(TABLE, rows(delivery), key="id") == (0, 0)
        assert store.pin(TABLE) == pin
        assert contents(store, pin) == expected


WRITER = """
import sys, pyarrow as pa
from resources.delta_tables import DeltaTableStore
store = DeltaTableStore(sys.argv[1])
first, last, batch = map(int, sys.argv[2:5])
print("ready", flush=True)
for start in range(first, last, batch):
    ids = [f"{n:06d}" for n in range(start, start + batch)]
    store.merge("t", pa.table({"id": ids, "value": list(range(start, start + batch))}), key="id")
"""


def start_writer(root: Path, first: int, last: int, batch: int) -> subprocess.Popen:
    command = [sys.executable, "-c", WRITER, str(root), str(first), str(last), str(batch)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    process.stdout.readline()
    return process


def test_a_writer_killed_anywhere_leaves_whole_commits_and_the_next_one_goes_on(tmp_path):
    batch, last = 500, 15_000
    lottery = random.Random(7)
    for _ in range(4):
        process = start_writer(tmp_path, 0, last, batch)
        time.sleep(lottery.uniform(0.02, 0.4))
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        pin = DeltaTableStore(tmp_path).pin("t")
        if pin is not None:
            found = DeltaTableStore(tmp_path).read(pin)
            assert found.num_rows == pin.rows == len(set(found["id"].to_pylist()))
            assert pin.rows % batch == 0
    process = start_writer(tmp_path, 0, last, batch)
    assert process.wait() == 0
    process.stdout.close()
    whole = MemoryTableStore()
    whole.merge("t", pa.table({"id": [f"{n:06d}" for n in range(last)], "value": list(range(last))}), key="id")
    assert DeltaTableStore(tmp_path).pin("t").content_hash == whole.pin("t").content_hash


def test_writers_at_the_same_time_lose_and_double_nothing(tmp_path):
    writers = [start_writer(tmp_path, first, first + 2_000, 200) for first in (0, 1_000, 1_000)]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    for writer in writers:
        writer.stdout.close()
    store = DeltaTableStore(tmp_path)
    found = store.read(store.pin("t"))["id"].to_pylist()
    assert sorted(found) == [f"{n:06d}" for n in range(3_000)]


def test_an_erased_row_is_in_no_version_that_can_be_read_and_the_others_stay(store, tmp_path):
    from platform_assets.specs.subjects import Marks

    store.merge(TABLE, rows({"person-one": 1, "b": 2}), key="id")
    first = store.pin(TABLE)
    store.merge(TABLE, rows({"c": 3}), key="id")
    marks = Marks({"id": ("person-one", "nobody")})
    assert store.tables() == [TABLE]
    assert set(store.search(TABLE, marks, columns=["value", "gone"])["value"].to_pylist()) == {"1"}
    assert store.erase(TABLE, marks) >= 1
    newest = store.pin(TABLE)
    assert contents(store, newest) == {"b": 2, "c": 3}
    assert newest.version > first.version + 1  # a number is never given twice
    with pytest.raises(DataError, match=f"version {first.version} of table"):
        store.read(first)
    assert store.search(TABLE, marks, columns=[]).num_rows == 0
    assert store.erase(TABLE, marks) == 0
    assert store.pin(TABLE) == newest
    assert not [file for file in tmp_path.rglob("*") if file.is_file() and b"person-one" in file.read_bytes()]
    store.merge(TABLE, rows({"d": 4}), key="id")
    assert contents(store, store.pin(TABLE)) == {"b": 2, "c": 3, "d": 4}


def test_what_a_killed_erasure_left_in_files_of_no_version_is_found_and_removed(tmp_path):
    from deltalake import DeltaTable, write_deltalake

    from platform_assets.specs.subjects import Marks

    store = DeltaTableStore(tmp_path)
    store.merge(TABLE, rows({"person-one": 1, "b": 2}), key="id")
    kept = store.read(store.pin(TABLE))
    write_deltalake(DeltaTable(store.location(TABLE)), kept.filter(pa.array([False, True])), mode="overwrite", schema_mode="overwrite")
    marks = Marks({"id": ("person-one",)})
    assert store.search(TABLE, marks, columns=[]).num_rows == 1
    assert store.erase(TABLE, marks) == 1
    assert store.search(TABLE, marks, columns=[]).num_rows == 0
    assert len(list((tmp_path / TABLE).glob("*.parquet"))) == 1
