"""The online file's reader, over files made by hand in the documented layout."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from array import array

import pytest

from platform_assets.stages.serving.online import OnlineReader

DAY = 86_400_000_000
WIDE = "price REAL, colour TEXT, since INTEGER, pixels BLOB"


def make(path, *, view="data__things", features=WIDE, rows=()):
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute(f'DROP TABLE IF EXISTS "{view}"')
        connection.execute(f'CREATE TABLE "{view}" (__entity TEXT PRIMARY KEY, __event_us INTEGER NOT NULL, {features})')
        marks = ", ".join("?" * (3 + features.count(",")))
        connection.executemany(f'INSERT INTO "{view}" VALUES ({marks})', rows)
    connection.close()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "online.sqlite"


def test_values_are_as_a_model_takes_them(path):
    pixels = array("f", [0.5, 0.25]).tobytes()
    make(path, rows=[("a", 5, 1.5, "red", DAY + DAY // 2, pixels), ("b", 6, None, None, None, None)])
    reader = OnlineReader(path)
    assert reader.read("data__things", "a") == {"price": 1.5, "colour": "red", "since": 1.5, "pixels": (0.5, 0.25)}
    assert reader.read("data__things", "b") == dict.fromkeys(["price", "colour", "since", "pixels"])
    assert reader.read_stamped("data__things", ["a"])[0][0] == 5


def test_many_come_in_the_order_asked_with_repeats_and_gaps(path):
    make(path, features="n REAL", rows=[(f"e{number}", 0, number) for number in range(1500)])
    asked = [f"e{number}" for number in reversed(range(1400))] + ["never", "e7", "e7"]
    found = OnlineReader(path).read_many("data__things", asked)
    assert [row and row["n"] for row in found] == [*map(float, reversed(range(1400))), None, 7.0, 7.0]


def test_nothing_there_yet_gives_none_until_it_appears(path):
    reader = OnlineReader(path)
    assert reader.read_many("data__things", ["a"]) == [None]
    make(path, view="data__others", features="n REAL")
    assert reader.read("data__things", "a") is None
    make(path, features="n REAL", rows=[("a", 0, 2.0)])
    assert reader.read("data__things", "a") == {"n": 2.0}


def test_a_table_begun_anew_is_read_with_its_new_columns(path):
    make(path, features="n REAL", rows=[("a", 0, 2.0)])
    reader = OnlineReader(path)
    reader.read("data__things", "a")
    make(path, features="m TEXT", rows=[("a", 1, "two")])
    assert reader.read("data__things", "a") == {"m": "two"}


def test_a_name_with_quotes_stays_a_name(path):
    make(path, features='"a ""b""; DROP" REAL', view="odd", rows=[("x'; --", 0, 1.0)])
    assert OnlineReader(path).read("odd", "x'; --") == {'a "b"; DROP': 1.0}
    assert OnlineReader(path).read('no "such"; view', "x") is None


def test_a_reader_cannot_write(path):
    make(path, features="n REAL")
    reader = OnlineReader(path)
    reader.read("data__things", "a")
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        reader._connection.execute('DELETE FROM "data__things"')


def test_a_reader_goes_on_after_being_closed(path):
    make(path, features="n REAL", rows=[("a", 0, 2.0)])
    reader = OnlineReader(path)
    reader.close()
    assert reader.read("data__things", "a") == {"n": 2.0}
    reader.close()
    assert reader.read("data__things", "a") == {"n": 2.0}


def test_the_reader_needs_the_standard_library_alone():
    code = "import sys, platform_assets.stages.serving.online; print([m for m in ('numpy', 'pyarrow', 'feast', 'pydantic') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
