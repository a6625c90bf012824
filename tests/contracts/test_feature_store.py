"""What every feature store must do, held against the in-memory one and Feast."""

from __future__ import annotations

from datetime import datetime, timedelta
from itertools import count

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis_process import own_redis

from platform_assets.specs.records import Feature, ViewTable
from resources.delta_tables import DeltaTableStore
from resources.feast_store import FeastFeatureStore
from resources.testing.features import MemoryFeatureStore

T0 = datetime(2026, 1, 1)
KINDS = {"score": "numeric", "colour": "category", "since": "date", "pixels": "image"}
FEATURES = [Feature(name=name, kind=kind, view="data__things", entity="thing") for name, kind in KINDS.items()]
MANY = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
NAMES = count()


@pytest.fixture
def tables(tmp_path):
    return DeltaTableStore(tmp_path / "tables")


@pytest.fixture(params=["in_memory", "feast", "feast_redis"])
def store(request, tables, tmp_path):
    if request.param == "in_memory":
        return MemoryFeatureStore(tables)
    online = own_redis(request.getfixturevalue("redis_server")) if request.param == "feast_redis" else None
    return FeastFeatureStore(tmp_path / "feast", tables=tables, online=online)


def things(rows):
    """Rows (entity, minutes, score) with every kind of feature told from the score."""
    scores = [row[2] for row in rows]
    return pa.table(
        {
            "thing": pa.array([row[0] for row in rows], pa.string()),
            "event_timestamp": pa.array([T0 + timedelta(minutes=row[1]) for row in rows], pa.timestamp("us")),
            "score": pa.array(scores, pa.float64()),
            "colour": pa.array([None if score is None else f"c{score:g}" for score in scores], pa.string()),
            "since": pa.array([None if score is None else T0 + timedelta(seconds=score) for score in scores], pa.timestamp("us")),
            "pixels": pa.array([None if score is None else [score, score / 2] for score in scores], pa.list_(pa.float32())),
        }
    )


def view_over(tables, rows, *, ttl_seconds=0, name=None):
    table = f"things_{next(NAMES)}" if name is None else name
    return ViewTable(name="data__things", entity="thing", kinds=KINDS, pin=tables.replace(table, things(rows)), ttl_seconds=ttl_seconds)


def entity_rows(rows):
    return pa.table(
        {
            "thing": pa.array([row[0] for row in rows], pa.string()),
            "at": pa.array([T0 + timedelta(minutes=row[1]) for row in rows], pa.timestamp("us")),
        }
    )


def scores_at(store, view, rows):
    return store.historical(entity_rows(rows), FEATURES, views=[view], event_time="at")["score"].to_pylist()


def brute_force(timeline, rows, *, ttl_minutes=None):
    """Scores by definition; of equal times the later row."""
    answers = []
    for entity, at in rows:
        known = [(minute, number) for number, (name, minute, _) in enumerate(timeline) if name == entity and minute <= at]
        minute, number = max(known, default=(None, None))
        stale = minute is not None and ttl_minutes is not None and at - minute > ttl_minutes
        answers.append(None if number is None or stale else timeline[number][2])
    return answers


ENTITIES = st.sampled_from(["a", "b", "c"])
MINUTES = st.integers(0, 12)
TIMELINE = st.lists(st.tuples(ENTITIES, MINUTES, st.one_of(st.none(), st.integers(0, 99).map(float))), min_size=1, max_size=25)
ASKED = st.lists(st.tuples(st.sampled_from(["a", "b", "c", "never", None]), MINUTES), min_size=1, max_size=25)


@MANY
@given(timeline=TIMELINE, asked=ASKED, ttl_minutes=st.one_of(st.none(), st.integers(1, 6)))
def test_a_join_gives_the_newest_value_not_after_the_event_and_no_other(store, tables, timeline, asked, ttl_minutes):
    view = view_over(tables, timeline, ttl_seconds=60 * (ttl_minutes or 0))
    assert scores_at(store, view, asked) == brute_force(timeline, asked, ttl_minutes=ttl_minutes)


def test_a_join_keeps_every_kind_of_value_and_every_repeated_row_in_order(store, tables):
    view = view_over(tables, [("a", 0, 4.0), ("b", 0, None)])
    joined = store.historical(entity_rows([("b", 1), ("a", 1), ("a", 1), ("x", 1)]), FEATURES, views=[view], event_time="at")
    assert joined.schema.names == list(KINDS)
    there = {"score": 4.0, "colour": "c4", "since": T0 + timedelta(seconds=4), "pixels": [4.0, 2.0]}
    nothing = dict.fromkeys(KINDS)
    assert joined.to_pylist() == [nothing, there, there, nothing]


def test_a_join_reads_the_pinned_version_whatever_came_later(store, tables):
    old = view_over(tables, [("a", 0, 1.0)], name="things")
    new = view_over(tables, [("a", 0, 2.0)], name="things")
    assert [scores_at(store, view, [("a", 5)]) for view in (old, new, old)] == [[1.0], [2.0], [1.0]]


def test_features_of_two_views_come_in_the_order_asked(store, tables):
    first = view_over(tables, [("a", 0, 1.0)])
    second = ViewTable(name="data__others", entity="thing", kinds={"score": "numeric"}, pin=first.pin)
    features = [Feature(name="score", kind="numeric", view="data__others", entity="thing"), FEATURES[1]]
    joined = store.historical(entity_rows([("a", 1)]), features, views=[first, second], event_time="at")
    assert joined.to_pylist() == [{"score": 1.0, "colour": "c1"}]


def test_registering_the_same_views_again_changes_nothing(store, tables):
    view = view_over(tables, [("a", 0, 1.0)], name="things")
    assert store.apply([view])
    assert not store.apply([view])
    newer = view_over(tables, [("a", 0, 2.0)], name="things")
    assert not store.apply([newer])
    assert store.apply([ViewTable(name=view.name, entity=view.entity, kinds={"score": "numeric"}, pin=view.pin)])


def test_online_values_are_the_newest_row_of_each_entity(store, tables):
    view = view_over(tables, [("a", 3, 3.0), ("a", 1, 1.0), ("b", 2, None)])
    store.apply([view])
    assert store.materialise(view) == 2
    there = {"score": 3.0, "colour": "c3", "since": T0 + timedelta(seconds=3), "pixels": [3.0, 1.5]}
    assert store.online(view, ["b", "never", "a", "a"]) == [dict.fromkeys(KINDS), None, there, there]


def test_materialising_writes_only_what_changed(store, tables):
    first = view_over(tables, [("a", 1, 1.0), ("b", 1, 1.0)], name="things")
    store.apply([first])
    assert store.materialise(first) == 2
    assert store.materialise(first) == 0
    second = view_over(tables, [("a", 1, 1.0), ("b", 2, 2.0), ("c", 0, 0.0)], name="things")
    assert store.materialise(second) == 2
    assert [row["score"] for row in store.online(second, ["a", "b", "c"])] == [1.0, 2.0, 0.0]


def test_a_late_row_does_not_displace_a_newer_online_value(store, tables):
    view = view_over(tables, [("a", 9, 9.0)], name="things")
    store.apply([view])
    store.materialise(view)
    late = view_over(tables, [("a", 4, 4.0)], name="things")
    assert store.materialise(late) == 0
    assert store.online(late, ["a"])[0]["score"] == 9.0


@MANY
@given(timeline=TIMELINE)
def test_online_values_agree_with_a_join_at_the_end_of_time(store, tables, timeline):
    name = f"v{next(NAMES)}"
    view = ViewTable(name=name, entity="thing", kinds=KINDS, pin=tables.replace(name, things(timeline)))
    store.apply([view])
    store.materialise(view)
    features = [Feature(name=kind_name, kind=kind, view=name, entity="thing") for kind_name, kind in KINDS.items()]
    entities = sorted({row[0] for row in timeline})
    joined = store.historical(entity_rows([(entity, 99) for entity in entities]), features, views=[view], event_time="at")
    assert store.online(view, entities) == joined.to_pylist()


def test_forgotten_entities_have_no_online_values_and_others_keep_theirs(store, tables):
    view = view_over(tables, [("a", 1, 1.0), ("b", 1, 2.0)])
    store.apply([view])
    store.materialise(view)
    assert store.forget(view.name, ["a", "nobody"]) == 1
    assert store.forget(view.name, ["a"]) == 0
    assert store.forget("no__such", ["a"]) == 0
    assert [row is None for row in store.online(view, ["a", "b"])] == [True, False]
    assert [store.held(view.name, [entity, "nobody"]) for entity in "ab"] == [0, 1]
    assert store.held("no__such", ["a"]) == store.held(view.name, []) == 0
