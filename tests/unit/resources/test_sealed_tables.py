"""Personal columns lie sealed and read as they were, merge as if they were open, and survive every rotation of keys."""

from __future__ import annotations

import json
from datetime import datetime

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from platform_assets.errors import SealError
from platform_assets.sealing.values import PREFIX, ValueCipher, make_value_key
from platform_assets.specs.dataset import Column, DatasetSpec, Drop, Generalise
from platform_assets.specs.subjects import Marks
from resources.column_keys import COLUMN_KEY_FILE, ColumnKey
from resources.delta_tables import DeltaTableStore
from resources.keys import LaptopKeys
from resources.sealed_tables import SealedTables
from resources.settings import Home
from resources.testing.keys import open_releases

RAW, PROTECTED = "dataset/d/ingested", "dataset/d/protected"
PERSON = "canary-person@mail.example"
DATASET = DatasetSpec(
    name="d", owner="team:t", source={"kind": "provided"}, key="id", event_time="at",
    columns={
        "id": Column(type="string"), "at": Column(type="timestamp"), "mail": Column(type="string", nullable=True, personal=Drop()),
        "age": Column(type="integer", nullable=True, personal=Generalise(method="generalise", width=10)),
        "income": Column(type="number", nullable=True, personal=Drop()), "born": Column(type="timestamp", nullable=True, personal=Drop()),
    },
)  # fmt: skip


@pytest.fixture
def keys(tmp_path):
    return LaptopKeys(tmp_path / "home" / "keys")


def open_store(tmp_path, keys):
    return SealedTables(
        DeltaTableStore(tmp_path / "home" / "tables"), datasets={"d": DATASET}, key=ColumnKey(tmp_path / "home" / "keys", keys=keys)
    )


def people(count=3):
    times = pa.array([datetime(1990, 1, 1 + row, 3, 4, 5, 6) for row in range(count)], pa.timestamp("us"))
    return pa.table({
        "id": [f"r{row}" for row in range(count)], "at": times, "mail": [PERSON, None, ""][:count],
        "age": pa.array([41, None, -7][:count], pa.int64()), "income": pa.array([0.1, None, 1e300][:count], pa.float64()), "born": times,
    })  # fmt: skip


def test_what_is_written_is_read_and_nothing_of_it_lies_in_the_open(tmp_path, keys):
    store = open_store(tmp_path, keys)
    assert store.merge(RAW, people(), key="id") == (3, 0)
    pin = store.pin(RAW)
    assert store.read(pin).sort_by("id").equals(people())
    assert store.read(pin, columns=["age"]).schema.field("age").type == pa.int64()
    assert store.merge(RAW, people(), key="id") == (0, 0)  # sealed anew, and the same
    assert open_store(tmp_path, keys).replace(RAW, people()) == pin
    lying = DeltaTableStore(tmp_path / "home" / "tables").read(pin)
    assert all(value is None or value.startswith(PREFIX) for name in ("mail", "age", "income", "born") for value in lying[name].to_pylist())
    assert not [file for file in (tmp_path / "home").rglob("*") if file.is_file() and PERSON.encode() in file.read_bytes()]


def test_only_raw_tables_of_declared_columns_are_sealed(tmp_path, keys):
    store = open_store(tmp_path, keys)
    pin = store.replace(PROTECTED, people())
    assert DeltaTableStore(tmp_path / "home" / "tables").read(pin)["mail"].to_pylist() == people()["mail"].to_pylist()
    assert not (tmp_path / "home" / "keys" / COLUMN_KEY_FILE).exists()


def test_a_person_is_found_and_erased_by_the_value(tmp_path, keys):
    store = open_store(tmp_path, keys)
    store.merge(RAW, people(), key="id")
    marks = Marks({"mail": (PERSON,)})
    assert store.search(RAW, marks, columns=["id", "mail"]).to_pylist() == [{"id": "r0", "mail": PERSON}]
    assert store.erase(RAW, marks) == 1
    assert store.search(RAW, marks, columns=[]).num_rows == 0


def test_what_was_written_before_columns_were_sealed_is_read_found_and_merged_over(tmp_path, keys):
    texts = people().select(["id", "at", "mail"])
    DeltaTableStore(tmp_path / "home" / "tables").merge(RAW, texts, key="id")
    store = open_store(tmp_path, keys)
    assert store.read(store.pin(RAW))["mail"].to_pylist() == texts["mail"].to_pylist()
    assert store.search(RAW, Marks({"mail": (PERSON,)}), columns=[]).num_rows == 1
    assert store.merge(RAW, texts, key="id")[0] == 0
    assert store.read(store.pin(RAW)).sort_by("id")["mail"].to_pylist() == texts["mail"].to_pylist()


def test_rotations_leave_every_value_readable_and_forget_the_key_before_last(tmp_path, keys):
    home = Home(tmp_path / "home")
    store = open_store(tmp_path, keys)
    store.merge(RAW, people(), key="id")
    key = ColumnKey(home.keys, keys=keys)
    for _ in range(3):
        key.rewrap()
        open_releases(home).rotate()
        key.rewrap()
        again = open_store(tmp_path, LaptopKeys(home.keys))
        assert again.read(again.pin(RAW)).sort_by("id").equals(people())
    assert len(keys.ids()) == 2
    assert json.loads((home.keys / COLUMN_KEY_FILE).read_text())["key_id"] == keys.current()


def test_without_the_key_there_is_one_clear_sentence(tmp_path, keys):
    store = open_store(tmp_path, keys)
    store.merge(RAW, people(), key="id")
    (tmp_path / "home" / "keys" / "releases.keys.json").unlink()
    with pytest.raises(SealError, match="personal columns of this home cannot be read"):
        open_store(tmp_path, keys).read(store.pin(RAW))


@given(st.text(), st.text())
def test_equal_values_and_only_those_are_sealed_alike_in_one_column_and_open_in_no_other(one, other):
    cipher = ValueCipher(make_value_key())
    sealed = cipher.seal(one, context=b"d/a")
    assert cipher.open(sealed, context=b"d/a") == one
    assert (sealed == cipher.seal(other, context=b"d/a")) == (one == other)
    assert sealed != cipher.seal(one, context=b"d/b")
    with pytest.raises(SealError):
        cipher.open(sealed, context=b"d/b")
    with pytest.raises(SealError):
        ValueCipher(make_value_key()).open(sealed, context=b"d/a")
