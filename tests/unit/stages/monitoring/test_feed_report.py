import json
from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from platform_assets.manifests import ReleaseFiles
from platform_assets.networks.shards import write_training_set
from platform_assets.specs.feed import FeedReport
from platform_assets.specs.model import ModelSpec
from platform_assets.specs.record_json import read_record, to_json
from platform_assets.specs.records import DriftReport, Feature, FeatureSchema, WindowReport
from platform_assets.stages.monitoring.feed_report import (
    FEED_FILE,
    extend_feed,
    faulty_keys,
    feed_columns,
    profile_feed,
    silence_faults,
    unjudged_keys,
)
from platform_assets.stages.monitoring.log import cut_windows

ROWS = 400
SCHEMA = FeatureSchema(
    (
        Feature("price", "numeric", "own", "id"),
        Feature("lead", "numeric", "own", "id"),
        Feature("segment", "category", "own", "id"),
        Feature("arrival", "date", "own", "id"),
        Feature("looked_up", "numeric", "demand", "segment"),
    ),
    "y", ("0", "1"), "id", "at",
)  # fmt: skip
MODEL = ModelSpec.model_validate({
    "name": "m", "owner": "team:a", "purpose": "Predict y for the tests", "dataset": "d", "features": {"views": ["own"]},
    "target": {"column": "y", "kind": "binary"}, "training": {"architecture": "tabular_mlp"}, "monitoring": {"window_rows": ROWS},
})  # fmt: skip


def rows(seed, count):
    rng = np.random.default_rng(seed)
    at = [datetime(2020, 1, 1) + timedelta(hours=seed * 1000 + hour) for hour in range(count)]
    return pa.table({
        "id": [f"{seed}-{place}" for place in range(count)],
        "at": pa.array(at, pa.timestamp("us")),
        "price": rng.normal(100, 20, count),
        "lead": rng.exponential(60, count).round(),
        "segment": rng.choice(["online", "direct", "group"], count).tolist(),
        "arrival": pa.array([moment + timedelta(days=int(days)) for moment, days in zip(at, rng.integers(0, 90, count), strict=True)], pa.timestamp("us")),
        "looked_up": np.zeros(count),
        "y": pa.array(rng.integers(0, 2, count).astype(str).tolist()),
    })  # fmt: skip


def as_log(table):
    names = [feature.name for feature in SCHEMA.features]
    inputs = [json.dumps({name: row[name].isoformat() if name == "arrival" else row[name] for name in names}) for row in table.to_pylist()]
    count = table.num_rows
    return pa.table({
        "prediction_id": table["id"], "key": table["id"], "version": ["v"] * count, "time": table["at"], "event_time": table["at"],
        "inputs": inputs, "probabilities": [[0.5, 0.5]] * count, "actual": pa.array([None] * count, pa.string()),
    })  # fmt: skip


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("release")
    parts = {"train": [rows(1, 5 * ROWS)], "calibration": [rows(2, 50)], "holdout": [rows(3, 50)]}
    write_training_set(folder / "data", parts, schema=SCHEMA)
    feed = profile_feed(MODEL, data_dir=folder / "data")
    return ReleaseFiles("d" * 64, {}, {"schema.json": to_json(SCHEMA).encode(), FEED_FILE: feed.encode()})


def spoil(table, kind):
    values = table["price"].to_numpy().copy()
    if kind == "duplicated batch":
        half = table.slice(0, ROWS // 2).drop_columns(["id", "at"])
        doubled = pa.concat_tables([half, half])
        moved = doubled.append_column("id", table["id"]).append_column("at", table["at"])
        late = [at + (arrival - first) for at, arrival, first in zip(
            table["at"].to_pylist(), doubled["arrival"].to_pylist(), table["at"].slice(0, ROWS // 2).to_pylist() * 2, strict=True
        )]  # fmt: skip
        return moved.set_column(moved.column_names.index("arrival"), "arrival", pa.array(late, pa.timestamp("us")))
    if kind == "unit change":
        values[: ROWS // 50] *= 100
    elif kind == "stuck sensor":
        values[ROWS // 2 :] = values[ROWS // 2]
    elif kind == "shifted column":
        lead = table["lead"].to_numpy()
        table = table.set_column(table.column_names.index("lead"), "lead", pa.array(values))
        values = lead
    return table.set_column(table.column_names.index("price"), "price", pa.array(values))


@pytest.mark.parametrize("kind", ["unit change", "stuck sensor", "shifted column", "duplicated batch"])
def test_a_window_whose_feed_is_broken_is_found_and_its_keys_are_kept(bundle, kind):
    healthy, broken = rows(4, ROWS), spoil(rows(5, ROWS), kind)
    feed = extend_feed(None, log=as_log(pa.concat_tables([healthy, broken.select(healthy.column_names)])), bundle=bundle, model=MODEL)
    (fault,) = feed.faults
    assert (feed.windows, fault.window, fault.kinds) == (2, 1, (kind,))
    assert set(fault.keys) == set(broken["id"].to_pylist())
    assert feed.now == fault
    assert fault.sentence.startswith("window 1 (rows 400 to 799): the feed is at fault, ")
    assert read_record(FeedReport, to_json(feed)) == feed


def test_a_window_is_judged_once_and_a_healthy_one_ends_the_fault(bundle):
    first = as_log(spoil(rows(4, ROWS), "unit change"))
    feed = extend_feed(None, log=first, bundle=bundle, model=MODEL)
    assert extend_feed(feed, log=first, bundle=bundle, model=MODEL) == feed
    later = extend_feed(feed, log=pa.concat_tables([first, as_log(rows(5, ROWS))]), bundle=bundle, model=MODEL)
    assert (later.windows, later.faults, later.now) == (2, feed.faults, None)


def test_what_is_looked_up_is_not_the_feed(bundle):
    columns, words = feed_columns(rows(1, 10), schema=SCHEMA)
    assert set(columns) == {"price", "lead", "segment", "arrival"}
    assert words == ("segment",)


def test_a_release_without_a_healthy_feed_finds_nothing(bundle):
    old = replace(bundle, files={"schema.json": bundle["schema.json"]})
    feed = extend_feed(None, log=as_log(spoil(rows(4, ROWS), "unit change")), bundle=old, model=MODEL)
    assert (feed.windows, feed.faults) == (1, ())


def test_a_faulty_window_is_no_drift_and_says_why(bundle):
    feed = extend_feed(None, log=as_log(spoil(rows(4, ROWS), "unit change")), bundle=bundle, model=MODEL)
    moved = WindowReport(0, 0, ROWS - 1, "a", "b", ("v",), (), drifted=True, evidence="price moved")
    after = replace(moved, window=1, evidence="price moved again")
    silenced = silence_faults(DriftReport((moved, after)), feed)
    assert [window.drifted for window in silenced.windows] == [False, True]
    assert silenced.windows[0].evidence == feed.faults[0].sentence


def test_what_stands_behind_the_last_full_window_is_not_judged(bundle):
    log = as_log(pa.concat_tables([rows(4, ROWS), rows(5, 30)]))
    feed = extend_feed(None, log=log, bundle=bundle, model=MODEL)
    assert unjudged_keys(feed, log=log, window_rows=ROWS) == {f"5-{place}" for place in range(30)}
    assert unjudged_keys(FeedReport(), log=log, window_rows=ROWS) == set(log["key"].to_pylist())
    assert faulty_keys(feed) == frozenset()


@settings(max_examples=20, deadline=None)
@given(st.lists(st.lists(st.integers(0, 30), max_size=9), min_size=1, max_size=6))
def test_a_row_is_unjudged_exactly_until_a_window_with_it_was_judged_however_late_it_came(batches):
    """Each batch is one look of the monitor: rows by the hour of their event, answered one second after the other."""
    model = MODEL.model_copy(update={"monitoring": MODEL.monitoring.model_copy(update={"window_rows": 4})})
    release = ReleaseFiles("d" * 64, {}, {"schema.json": to_json(SCHEMA).encode()})
    feed, log, judged = FeedReport(), None, set()
    for batch in batches:
        came = 0 if log is None else log.num_rows
        new = as_log(rows(1, max(len(batch), 1))).slice(0, len(batch))
        names = [f"k{came + place}" for place in range(len(batch))]
        events = pa.array([datetime(2020, 1, 1) + timedelta(hours=hour) for hour in batch], pa.timestamp("us"))
        answers = pa.array([datetime(2021, 1, 1) + timedelta(seconds=came + place) for place in range(len(batch))], pa.timestamp("us"))
        for name, column in {
            "key": pa.array(names, pa.string()),
            "prediction_id": pa.array(names, pa.string()),
            "event_time": events,
            "time": answers,
        }.items():
            new = new.set_column(new.column_names.index(name), name, column)
        log = new if log is None else pa.concat_tables([log, new])
        for _, window in cut_windows(log, window_rows=4, feed=feed):
            judged.update(window["key"].to_pylist())
        feed = extend_feed(feed, log=log, bundle=release, model=model)
        assert unjudged_keys(feed, log=log, window_rows=4) == set(log["key"].to_pylist()) - judged
