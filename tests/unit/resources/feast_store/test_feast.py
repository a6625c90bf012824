"""What our stores do behind Feast's own interface, beyond the port: Feast's API is called as a user of Feast would."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from platform_assets.errors import DataError
from platform_assets.specs.records import Feature, ViewTable
from platform_assets.stages.serving.online import OnlineReader
from resources.delta_tables import DeltaTableStore
from resources.feast_store import FeastFeatureStore

T0 = datetime(2026, 1, 1)


def minutes(*values):
    return pa.array([T0 + timedelta(minutes=value) for value in values], pa.timestamp("us"))


@pytest.fixture
def tables(tmp_path):
    return DeltaTableStore(tmp_path / "tables")


@pytest.fixture
def store(tables, tmp_path):
    return FeastFeatureStore(tmp_path / "feast", tables=tables)


@pytest.fixture
def view(tables):
    rows = pa.table({"thing": ["a", "a", "b"], "event_timestamp": minutes(0, 10, 5), "score": [1.0, 2.0, 3.0]})
    return ViewTable(name="data__things", entity="thing", kinds={"score": "numeric"}, pin=tables.replace("things", rows))


@pytest.fixture
def feast(store, view):
    """Feast itself, with one view registered and materialised."""
    store.apply([view])
    store.materialise(view)
    return store._store()


def test_feast_takes_entity_rows_from_pandas_and_keeps_their_order_repeats_and_columns(feast):
    asked = pd.DataFrame(
        {"thing": ["b", "a", "a", "a", "x"], "event_timestamp": [T0 + timedelta(minutes=m) for m in (6, 10, 9, 10, 9)], "extra": range(5)}
    )
    found = feast.get_historical_features(entity_df=asked, features=["data__things:score"]).to_df()
    assert found["score"].tolist()[:4] == [3.0, 2.0, 1.0, 2.0]
    assert pd.isna(found["score"][4])
    assert found["extra"].tolist() == list(range(5))
    assert found["thing"].tolist() == ["b", "a", "a", "a", "x"]


def test_feast_without_entity_rows_gives_each_entity_seen_in_the_span(feast):
    job = feast.get_historical_features(
        features=["data__things:score"], start_date=T0 + timedelta(minutes=1), end_date=T0 + timedelta(minutes=9)
    )
    assert job.to_arrow().to_pylist() == [{"thing": "b", "event_timestamp": T0 + timedelta(minutes=9), "score": 3.0}]


def test_entity_rows_without_the_key_are_refused_by_name(feast):
    job = feast.get_historical_features(
        entity_df=pa.table({"other": ["a"], "event_timestamp": minutes(1)}), features=["data__things:score"]
    )
    with pytest.raises(ValueError, match="joined by thing"):
        job.to_arrow()


def test_pulls_give_all_rows_or_the_newest_of_a_span_both_ends_included(feast):
    from resources.feast_store.offline import DeltaOfflineStore

    source = feast.get_feature_view("data__things").batch_source
    names = (["thing"], ["score"], "event_timestamp")
    span = (T0, (T0 + timedelta(minutes=10)).replace(tzinfo=UTC))
    everything = DeltaOfflineStore.pull_all_from_table_or_query(feast.config, source, *names)
    within = DeltaOfflineStore.pull_all_from_table_or_query(feast.config, source, *names, None, T0, T0 + timedelta(minutes=5))
    latest = DeltaOfflineStore.pull_latest_from_table_or_query(feast.config, source, *names, None, *span)
    assert [sorted(job.to_arrow()["score"].to_pylist()) for job in (everything, within, latest)] == [
        [1.0, 2.0, 3.0],
        [1.0, 3.0],
        [2.0, 3.0],
    ]


def test_of_rows_of_one_event_time_the_newest_created_counts(feast, tables):
    from feast import Entity, FeatureView, Field, ValueType
    from feast.types import Float64, String

    from resources.feast_store.source import DeltaSource

    rows = pa.table({"thing": ["a", "a", "a"], "event_timestamp": minutes(0, 0, 0), "made": minutes(2, 9, 5), "score": [1.0, 2.0, 3.0]})
    pin = tables.replace("made", rows)
    source = DeltaSource(
        name="made", path=tables.location("made"), version=pin.version, timestamp_field="event_timestamp", created_timestamp_column="made"
    )
    entity = Entity(name="thing", join_keys=["thing"], value_type=ValueType.STRING)
    schema = [Field(name="thing", dtype=String), Field(name="score", dtype=Float64)]
    feast.apply([entity, FeatureView(name="made", entities=[entity], schema=schema, source=source)])
    found = feast.get_historical_features(
        entity_df=pa.table({"thing": ["a"], "event_timestamp": minutes(1)}), features=["made:score"]
    ).to_arrow()
    assert found["score"].to_pylist() == [2.0]
    # Feast's own way of materialising goes through pull_latest and online_write_batch.
    feast.materialize(T0 - timedelta(days=1), T0 + timedelta(days=1), feature_views=["made"])
    assert feast.get_online_features(features=["made:score"], entity_rows=[{"thing": "a"}]).to_dict()["score"] == [2.0]


def test_feasts_own_writes_are_read_by_the_reader_and_an_older_one_changes_nothing(feast, store):
    for minute, score in ((20, 20.0), (15, 15.0)):
        frame = pd.DataFrame({"thing": ["a"], "event_timestamp": [T0 + timedelta(minutes=minute)], "score": [score]})
        feast.write_to_online_store("data__things", frame)
    assert feast.get_online_features(features=["data__things:score"], entity_rows=[{"thing": "a"}]).to_dict()["score"] == [20.0]
    assert OnlineReader(store._online).read("data__things", "a") == {"score": 20.0}


def test_a_view_removed_from_feast_leaves_the_online_file(feast, store):
    gone = feast.get_feature_view("data__things")
    feast.apply([], objects_to_delete=[gone], partial=False)
    assert feast.list_feature_views() == []
    assert OnlineReader(store._online).read("data__things", "a") is None


def test_tearing_feast_down_empties_the_online_file(feast, store):
    feast.teardown()
    assert OnlineReader(store._online).read("data__things", "a") is None


def test_a_registry_that_was_lost_is_made_again(store, view):
    assert store.apply([view])
    (store._home / "registry.db").unlink()
    assert store.apply([view])
    assert store._store().get_feature_view("data__things").name == "data__things"


def test_an_unchanged_view_is_told_without_importing_feast(store, view, tmp_path):
    store.apply([view])
    code = f"""
import sys
from pathlib import Path
from platform_assets.specs.record_json import read_record
from platform_assets.specs.records import ViewTable
from resources.feast_store import FeastFeatureStore
from resources.delta_tables import DeltaTableStore
tables = DeltaTableStore(Path({str(tmp_path / "tables")!r}))
view = ViewTable(name="data__things", entity="thing", kinds={{"score": "numeric"}}, pin=tables.pin("things"))
store = FeastFeatureStore(Path({str(store._home)!r}), tables=tables)
print(store.apply([view]), store.materialise(view), "feast" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split() == [
        "False",
        "2",
        "False",
    ]


def test_a_join_of_a_view_without_its_version_is_refused(store, view):
    with pytest.raises(DataError, match="views data__other are asked for"):
        store.historical(
            pa.table({"thing": ["a"], "at": minutes(1)}), [Feature("x", "numeric", "data__other", "thing")], views=[view], event_time="at"
        )


def test_two_threads_that_join_different_versions_each_get_their_own(store, tables):
    def version(score):
        rows = pa.table({"thing": ["a"], "event_timestamp": minutes(0), "score": [score]})
        return ViewTable(name="data__things", entity="thing", kinds={"score": "numeric"}, pin=tables.replace("things", rows))

    views, wrong = [version(1.0), version(2.0)], []

    def join(view, score):
        for _ in range(5):
            asked = pa.table({"thing": ["a"], "at": minutes(1)})
            found = store.historical(asked, [Feature("score", "numeric", "data__things", "thing")], views=[view], event_time="at")
            if found["score"].to_pylist() != [score]:
                wrong.append(found)

    threads = [threading.Thread(target=join, args=pair) for pair in zip(views, (1.0, 2.0), strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_reader_is_never_kept_waiting_by_a_writer(store, tables, view):
    store.materialise(view)
    reader = OnlineReader(store._online)
    from resources.feast_store.bulk import open_for_writing, upsert

    with open_for_writing(store._online) as connection:
        upsert(connection, "data__things", features=["score"], rows=[("a", 2**60, 9.0)])
        assert reader.read("data__things", "a") == {"score": 2.0}
    assert reader.read("data__things", "a") == {"score": 9.0}


def test_a_write_killed_in_the_middle_leaves_what_was_there(store, view):
    store.materialise(view)
    code = f"""
import time
from pathlib import Path
from resources.feast_store.bulk import open_for_writing, upsert
with open_for_writing(Path({str(store._online)!r})) as connection:
    upsert(connection, "data__things", features=["score"], rows=((f"k{{n}}", 2**60, 9.0) for n in range(50_000)))
    print("written", flush=True)
    time.sleep(60)
"""
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert child.stdout.readline().strip() == "written"
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    child.stdout.close()
    reader = OnlineReader(store._online)
    assert reader.read_many("data__things", ["a", "k1"]) == [{"score": 2.0}, None]
    assert store.materialise(view) == 0


def test_fifty_thousand_entities_are_written_and_read_back_through_feast(store, tables):
    number = pa.array(range(50_000), pa.int64())
    names = [f"f{column}" for column in range(20)]
    columns = {name: pc.add(number.cast(pa.float64()), float(column)) for column, name in enumerate(names)}
    rows = pa.table({"thing": number.cast(pa.string()), "event_timestamp": number.cast(pa.timestamp("us")), **columns})
    view = ViewTable(name="data__many", entity="thing", kinds=dict.fromkeys(names, "numeric"), pin=tables.replace("many", rows))
    store.apply([view])
    start = time.process_time()
    assert store.materialise(view) == 50_000
    print(json.dumps({"bulk_write_cpu_seconds": round(time.process_time() - start, 2)}))
    assert store.online(view, ["0", "49999"]) == [
        {name: float(number + column) for column, name in enumerate(names)} for number in (0, 49_999)
    ]
