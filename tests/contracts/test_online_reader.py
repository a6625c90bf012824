"""The server's readers of online values, of a file and of a Redis, say what Feast itself says of the same rows, kept in Feast's own SQLite store."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pandas as pd
import pyarrow as pa
import pytest
from redis_process import own_redis

from platform_assets.specs.records import Feature, FeatureSchema, ViewTable
from platform_assets.stages.serving.lookup import Lookup, open_reader
from resources.delta_tables import DeltaTableStore
from resources.feast_store import FeastFeatureStore
from resources.settings import silence_telemetry

T0 = datetime(2026, 1, 1)
KINDS = {"score": "numeric", "colour": "category", "since": "date"}
THINGS = [
    ("a", 0, 1.5, "red", T0),
    ("a", 9, 2.5, "blue", T0 + timedelta(days=1, seconds=7)),
    ("b", 3, None, None, None),
    ("c'; --", 4, 0.0, "", T0),
]
PLACES = [("a", 1, 7.0), ("z", 2, None)]
ASKED = ["b", "never", "a", "c'; --", "a"]


def frame(rows, *, entity, names):
    columns = {entity: [row[0] for row in rows], "event_timestamp": [T0 + timedelta(minutes=row[1]) for row in rows]}
    return pd.DataFrame({**columns, **{name: [row[2 + at] for row in rows] for at, name in enumerate(names)}})


@pytest.fixture(scope="module")
def feast(tmp_path_factory):
    """Feast as it comes, with the same rows; things go stale after a minute, places never do."""
    silence_telemetry()
    from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
    from feast.repo_config import RegistryConfig
    from feast.types import Float64, String, UnixTimestamp

    root = tmp_path_factory.mktemp("feast")
    config = RepoConfig(
        project="own", provider="local", registry=RegistryConfig(path=str(root / "registry.db")), offline_store={"type": "file"},
        online_store={"type": "sqlite", "path": str(root / "online.db")}, entity_key_serialization_version=3, repo_path=root,
    )  # fmt: skip
    types = {"score": Float64, "colour": String, "since": UnixTimestamp, "warmth": Float64}
    store, made = FeatureStore(config=config), []
    for name, entity, rows, names, ttl in (
        ("things", "thing", THINGS, list(KINDS), timedelta(minutes=1)), ("places", "place", PLACES, ["warmth"], timedelta(0)),
    ):  # fmt: skip
        key = Entity(name=entity, join_keys=[entity], value_type=ValueType.STRING)
        table = frame(rows, entity=entity, names=names)
        table.astype({"event_timestamp": "datetime64[us]"}).to_parquet(root / f"{name}.parquet")
        source = FileSource(name=name, path=str(root / f"{name}.parquet"), timestamp_field="event_timestamp")
        schema = [Field(name=entity, dtype=String), *(Field(name=one, dtype=types[one]) for one in names)]
        made += [key, FeatureView(name=name, entities=[key], schema=schema, source=source, ttl=ttl)]
    store.apply(made)
    for name, entity, rows, names in (("things", "thing", THINGS, list(KINDS)), ("places", "place", PLACES, ["warmth"])):
        store.write_to_online_store(name, df=frame(rows, entity=entity, names=names).astype({"event_timestamp": "datetime64[us]"}))
    return store


@pytest.fixture(scope="module", params=["sqlite", "redis"])
def reader(request, tmp_path_factory):
    """Our layouts, as the platform writes them."""
    root = tmp_path_factory.mktemp("ours")
    tables = DeltaTableStore(root / "tables")
    place = root / "feast" / "online.sqlite" if request.param == "sqlite" else own_redis(request.getfixturevalue("redis_server"))
    store = FeastFeatureStore(root / "feast", tables=tables, online=place)
    for name, entity, rows, kinds in (("things", "thing", THINGS, KINDS), ("places", "place", PLACES, {"warmth": "numeric"})):
        table = pa.Table.from_pandas(frame(rows, entity=entity, names=list(kinds)), preserve_index=False)
        types = {"numeric": pa.float64(), "category": pa.string(), "date": pa.timestamp("us")}
        schema = pa.schema(
            [(entity, pa.string()), ("event_timestamp", pa.timestamp("us")), *((one, types[kind]) for one, kind in kinds.items())]
        )
        store.materialise(ViewTable(name=name, entity=entity, kinds=kinds, pin=tables.replace(name, table.cast(schema)), ttl_seconds=60))
    return open_reader(place)


def said_by_feast(feast, features, rows):
    found = feast.get_online_features(features=features, entity_rows=rows).to_dict()
    names = [feature.split(":")[1] for feature in features]
    return [{name: plain(found[name][at]) for name in names} for at in range(len(rows))]


def plain(value):
    """Dates as our models take them: days."""
    if isinstance(value, datetime):
        return (value.astimezone(UTC).replace(tzinfo=None) - datetime(1970, 1, 1)) / timedelta(days=1)
    return value


def test_newest_values_missing_ones_and_entities_that_are_not_there_are_as_feast_says(feast, reader):
    theirs = said_by_feast(feast, [f"things:{name}" for name in KINDS], [{"thing": name} for name in ASKED])
    ours = reader.read_many("things", ASKED)
    nothing = dict.fromkeys(KINDS)
    assert [row or nothing for row in ours] == theirs
    assert ours[1] is None
    assert ours[0] == nothing
    assert ours[2] == ours[4] == {"score": 2.5, "colour": "blue", "since": 20455 + 7 / 86400}


def test_values_older_than_their_time_to_live_are_given_by_both(feast, reader):
    """Feast bounds the age of a value in joins of history alone, by its event; online it gives the newest, whatever the wall clock says."""
    assert said_by_feast(feast, ["things:score"], [{"thing": "a"}]) == [{"score": 2.5}]
    assert reader.read("things", "a")["score"] == 2.5


def test_several_entities_of_a_row_are_looked_up_each_in_its_view(feast, reader):
    asked = [{"thing": "a", "place": "z"}, {"thing": "never", "place": "a"}, {"thing": "b", "place": "never"}]
    theirs = said_by_feast(feast, ["things:score", "places:warmth"], asked)
    features = (Feature("score", "numeric", "things", "thing"), Feature("warmth", "numeric", "places", "place"))
    schema = FeatureSchema(features, "y", ("0", "1"), "row", "at")
    rows = [dict(row) for row in asked]
    lookup = Lookup(reader)
    lookup.fill(rows, schema=schema)
    assert [{name: row.get(name) for name in ("score", "warmth")} for row in rows] == theirs
    assert lookup.missed_rows == 2
    assert "score" not in rows[1]


def test_what_a_caller_gives_is_kept_and_a_row_without_its_entity_is_left_alone(reader):
    schema = FeatureSchema(
        (Feature("score", "numeric", "things", "thing"), Feature("colour", "category", "things", "thing")), "y", ("0", "1"), "row", "at"
    )
    rows = [{"thing": "a", "score": 9.0}, {"score": 1.0}, {"thing": None}, {"thing": "a", "score": 9.0, "colour": None}]
    Lookup(reader).fill(rows, schema=schema)
    assert rows == [
        {"thing": "a", "score": 9.0, "colour": "blue"},
        {"score": 1.0},
        {"thing": None},
        {"thing": "a", "score": 9.0, "colour": None},
    ]
    assert not Lookup(None).lacks(rows, schema=schema)


def test_a_release_that_looks_nothing_up_leaves_rows_alone(reader):
    schema = FeatureSchema((Feature("score", "numeric", "things", "thing"),), "y", ("0", "1"), "row", "at", online=False)
    rows = [{"thing": "a"}]
    lookup = Lookup(reader)
    assert not lookup.lacks(rows, schema=schema)
    lookup.fill(rows, schema=schema)
    assert rows == [{"thing": "a"}]


def test_an_entity_of_two_columns_is_refused_in_a_sentence(tmp_path):
    """Our layout keeps a row an entity of one column; Feast's own store takes several."""
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey
    from feast.protos.feast.types.Value_pb2 import Value

    from resources.feast_store.online import TableOnlineStore

    key = EntityKey(join_keys=["thing", "place"], entity_values=[Value(string_val="a"), Value(string_val="z")])
    config = SimpleNamespace(online_store=SimpleNamespace(path=tmp_path / "online.sqlite", redis=None))
    view = SimpleNamespace(name="pairs", features=[])
    with pytest.raises(ValueError, match="online values are kept by one entity, these keys have 2: thing, place"):
        TableOnlineStore().online_read(config, view, [key])
