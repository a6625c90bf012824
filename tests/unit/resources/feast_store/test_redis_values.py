"""Newest values in a real Redis: what a kill, an outage, an emptied server and a second writer leave, and how it is spoken to."""

import shutil
import signal
import subprocess
import sys
import time
from datetime import datetime, timedelta

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redis_process import own_redis, run_redis

from platform_assets.errors import StateError
from platform_assets.specs.records import Feature, FeatureSchema, TablePin, ViewTable
from platform_assets.stages.serving import online_redis
from platform_assets.stages.serving.lookup import Lookup
from platform_assets.stages.serving.online import OnlineReader
from platform_assets.stages.serving.online_redis import RedisOnlineReader, RedisPlace, connect, hash_of
from resources.feast_store.bulk import SqliteValues
from resources.feast_store.redis_values import RedisValues

T0 = datetime(2026, 1, 1)
KINDS = {"score": "numeric", "colour": "category", "since": "date", "pixels": "image", "height": "numeric"}


def view(version=0, *, kinds=KINDS):
    return ViewTable(name="things", entity="thing", kinds=kinds, pin=TablePin("t", version, 1, str(version)))


def table(rows):
    """Rows (entity, minutes, score); everything else follows from the score."""
    scores = [row[2] for row in rows]
    return pa.table(
        {
            "thing": pa.array([row[0] for row in rows], pa.string()),
            "event_timestamp": pa.array([T0 + timedelta(minutes=row[1]) for row in rows], pa.timestamp("us")),
            "score": pa.array(scores, pa.float64()),
            "colour": pa.array([None if score is None else f"c{score}" for score in scores], pa.string()),
            "since": pa.array([None if score is None else T0 + timedelta(seconds=len(str(score))) for score in scores], pa.timestamp("us")),
            "pixels": pa.array([None if score is None else [1.5, 0.25] for score in scores], pa.list_(pa.float32())),
            "height": pa.array(scores, pa.float64()),
        }
    )


@pytest.fixture
def place(redis_server):
    return own_redis(redis_server)


ROWS = st.lists(
    st.tuples(
        st.text(max_size=3) | st.sampled_from(["\0kinds", "\0\0", "\0pin"]), st.integers(-10, 10), st.none() | st.floats(allow_nan=False)
    ),
    min_size=1, max_size=20,
)  # fmt: skip


@settings(max_examples=15, deadline=None)
@given(first=ROWS, second=ROWS)
def test_redis_and_the_file_hold_the_same_after_any_two_writes(redis_server, tmp_path_factory, first, second):
    place, file = own_redis(redis_server), tmp_path_factory.mktemp("sqlite") / "online.sqlite"
    ours, theirs = RedisValues(place), SqliteValues(file)
    asked = [*dict.fromkeys(row[0] for row in [*first, *second]), "\0begun", "never"]
    for version, rows in enumerate((first, second)):
        assert ours.write_view(view(version), table(rows)) == theirs.write_view(view(version), table(rows))
        assert ours.pin("things") == theirs.pin("things")
        assert RedisOnlineReader(place).read_stamped("things", asked) == OnlineReader(file).read_stamped("things", asked)
    assert ours.forget("things", asked[:2]) == theirs.forget("things", asked[:2])
    assert [ours.held("things", [one]) for one in asked] == [theirs.held("things", [one]) for one in asked]


def test_a_view_with_other_features_is_begun_anew_and_one_with_the_same_is_not(place):
    values = RedisValues(place)
    values.write_view(view(), table([("a", 0, 1.0)]))
    values.ensure("things", kinds=KINDS)
    assert values.held("things", ["a"]) == 1
    values.ensure("things", kinds={"score": "numeric"})
    assert values.held("things", ["a"]) == 0
    assert values.pin("things") is None
    values.drop("things")
    assert RedisOnlineReader(place).read("things", "a") is None


@pytest.mark.parametrize("lost", ["emptied", "begun anew"])
def test_a_write_whose_view_is_lost_meanwhile_ends_in_a_sentence_and_leaves_no_pin(place, monkeypatch, lost):
    values, client = RedisValues(place), connect(place, seconds=5, tries=1)
    begin = values._begin

    def lose(*arguments):
        begun = begin(*arguments)
        client.flushdb()
        if lost == "begun anew":
            begin(*arguments)
        return begun

    monkeypatch.setattr(values, "_begin", lose)
    with pytest.raises(StateError, match=r"of things in Redis at 127\.0\.0\.1:\d+ were begun anew, or lost, while they were written; run"):
        values.write_view(view(), table([("a", 0, 1.0)]))
    assert values.pin("things") is None
    assert RedisValues(place).write_view(view(), table([("a", 0, 1.0)])) == 1


_WRITER = """
import sys
from datetime import datetime
import pyarrow as pa
from platform_assets.specs.records import TablePin, ViewTable
from platform_assets.stages.serving.online_redis import RedisPlace
from resources.feast_store import redis_values
redis_values._ROWS_A_SCRIPT, redis_values._SCRIPTS_A_CALL = 10, 1
rows = 20_000
table = pa.table({"thing": [str(n) for n in range(rows)], "event_timestamp": pa.array([datetime(2026, 1, 2)] * rows, pa.timestamp("us")),
                  "score": [2.0] * rows})
print("ready", flush=True)
view = ViewTable(name="things", entity="thing", kinds={"score": "numeric"}, pin=TablePin("t", 1, rows, "1"))
redis_values.RedisValues(RedisPlace(sys.argv[1])).write_view(view, table)
"""


def test_a_killed_write_leaves_whole_rows_and_the_pin_of_before_and_the_next_goes_on(place):
    kinds, entities = {"score": "numeric"}, [str(number) for number in range(20_000)]
    values = RedisValues(place)
    old = table([(entity, 0, 1.0) for entity in entities]).select(["thing", "event_timestamp", "score"])
    values.write_view(view(0, kinds=kinds), old)
    before = values.pin("things")
    writer = subprocess.Popen([sys.executable, "-c", _WRITER, place.url], stdout=subprocess.PIPE)
    writer.stdout.readline()
    reader, until = RedisOnlineReader(place), time.monotonic() + 30
    while reader.read("things", "0") == {"score": 1.0}:
        assert time.monotonic() < until
    writer.send_signal(signal.SIGKILL)
    writer.communicate()
    found = [row["score"] for row in reader.read_many("things", entities)]
    new = found.count(2.0)
    assert 0 < new < len(entities)
    assert found.count(1.0) == len(entities) - new
    assert values.pin("things") == before
    whole = table([(entity, 24 * 60, 2.0) for entity in entities]).select(["thing", "event_timestamp", "score"])
    assert values.write_view(view(1, kinds=kinds), whole) == len(entities) - new
    assert set(map(str, reader.read_many("things", entities))) == {"{'score': 2.0}"}


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    """A Redis that asks for a password, and where it is written."""
    if shutil.which("redis-server") is None:
        pytest.skip("no Redis server on this machine: install Debian's package redis-server")
    folder = tmp_path_factory.mktemp("guarded")
    (folder / "password").write_text("s3cr&t/pass word\n")
    with run_redis(folder, password="s3cr&t/pass word") as url:
        yield RedisPlace(url, folder / "password")


def test_the_password_is_read_from_its_file_and_a_wrong_one_is_told_without_being_said(guarded, tmp_path):
    RedisValues(guarded).write_view(view(), table([("a", 0, 1.0)]))
    assert RedisOnlineReader(guarded).read("things", "a")["score"] == 1.0
    (tmp_path / "wrong").write_text("canary-4711")
    for wrong in (RedisPlace(guarded.url), RedisPlace(guarded.url, tmp_path / "wrong")):
        with pytest.raises(StateError, match=r"could not be used for online values: .*(?i:auth|username-password)") as refused:
            RedisValues(wrong).pin("things")
        assert "canary" not in str(refused.value)
    with pytest.raises(StateError, match=r"the password of Redis at 127\.0\.0\.1:\d+ cannot be read from .*absent"):
        RedisValues(RedisPlace(guarded.url, tmp_path / "absent")).pin("things")


def test_an_outage_is_one_sentence_for_a_writer_and_missing_values_for_a_request_until_it_is_over(tmp_path, monkeypatch):
    if shutil.which("redis-server") is None:
        pytest.skip("no Redis server on this machine: install Debian's package redis-server")
    monkeypatch.setattr(online_redis, "_PAUSE_SECONDS", 0.2)
    with run_redis(tmp_path) as url:
        place, port = RedisPlace(url), int(url.rpartition(":")[2].partition("/")[0])
        values, reader = RedisValues(place), RedisOnlineReader(place)
        values.write_view(view(), table([("a", 0, 1.0)]))
        lookup, rows = Lookup(reader), [{"thing": "a"}]
        schema = FeatureSchema((Feature("score", "numeric", "things", "thing"),), "y", ("0", "1"), "row", "at")
        lookup.fill(rows, schema=schema)
        assert rows == [{"thing": "a", "score": 1.0}]
    with pytest.raises(StateError, match=rf"Redis at 127\.0\.0\.1:{port} could not be used for online values: .*refused"):
        values.write_view(view(1), table([("a", 0, 1.0)]))
    calls = 0
    ask = reader._client.hmget

    def counted(*arguments):
        nonlocal calls
        calls += 1
        return ask(*arguments)

    monkeypatch.setattr(reader._client, "hmget", counted)
    rows = [{"thing": "a"}]
    for _ in range(5):
        lookup.fill(rows, schema=schema)
    assert rows == [{"thing": "a"}]
    assert (lookup.read_errors, lookup.missed_rows, calls) == (5, 5, 1)
    with run_redis(tmp_path, port=port):
        until = time.monotonic() + 10
        while "score" not in rows[0]:
            lookup.fill(rows, schema=schema)
            assert time.monotonic() < until
    assert rows == [{"thing": "a", "score": 1.0}]  # the append-only file had it


def test_feasts_own_batches_keep_the_newest_row_of_each_entity(place):
    values = RedisValues(place)
    kinds = {"score": "numeric", "colour": "category"}
    assert (
        values.upsert("things", kinds=kinds, rows=[("a", 5, 1.0, "x"), ("a", 4, 9.0, "y"), ("b", 1, None, None), ("a", 5, 2.0, "z")]) == 2
    )
    assert RedisOnlineReader(place).read_stamped("things", ["a", "b"]) == [(5, {"score": 2.0, "colour": "z"}), (1, dict.fromkeys(kinds))]
    assert connect(place, seconds=5, tries=1).hlen(hash_of("things")) == 4
