"""Training sets: the split's algebra, and the folder's bytes."""

from __future__ import annotations

import hashlib
import random
from datetime import datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from platform_assets.errors import DataError
from platform_assets.specs.dataset import DatasetSpec
from platform_assets.specs.model import ModelSpec, SplitSpec
from platform_assets.specs.record_json import read_record
from platform_assets.specs.records import FeatureSchema
from platform_assets.stages.features.training_set import build_training_set, time_cuts
from platform_assets.stages.features.views import view_rows
from resources.testing.features import MemoryFeatureStore
from resources.testing.tables import MemoryTableStore

T0 = datetime(2026, 1, 1)

DATASET = DatasetSpec.model_validate(
    {
        "name": "stays",
        "owner": "team:test",
        "source": {"kind": "provided"},
        "key": "id",
        "event_time": "at",
        "label": {"column": "gone", "known_at": "left_at"},
        "columns": {
            "id": {"type": "string"},
            "at": {"type": "timestamp"},
            "left_at": {"type": "timestamp"},
            "segment": {"type": "string"},
            "price": {"type": "number", "nullable": True},
            "picture": {"type": "image", "shape": [1, 2]},
            "gone": {"type": "integer", "nullable": True},
        },
        "views": {
            "stay": {"kind": "columns", "entity": "id", "columns": ["price", "segment", "left_at", "picture"]},
            "demand": {
                "kind": "aggregates",
                "entity": "segment",
                "every": "1d",
                "aggregates": {"price_2d": {"mean": "price", "window": "2d"}},
            },
        },
    }
)
MODEL = ModelSpec.model_validate(
    {
        "name": "leavers",
        "owner": "team:test",
        "purpose": "Predict who leaves, for a test",
        "dataset": "stays",
        "features": {"views": ["stay", "demand"]},
        "target": {"column": "gone", "kind": "binary"},
        "split": {"calibration": 0.2, "holdout": 0.2},
        "training": {"architecture": "tabular_mlp"},
    }
)

STAY = st.tuples(
    st.integers(0, 30), st.sampled_from(["web", "desk"]), st.one_of(st.none(), st.floats(0, 100)), st.sampled_from([0, 1, None])
)


def stays(rows):
    return pa.table(
        {
            "id": [f"s{number:03d}" for number in range(len(rows))],
            "at": pa.array([T0 + timedelta(hours=8 * row[0]) for row in rows], pa.timestamp("us")),
            "left_at": pa.array([T0 + timedelta(hours=8 * row[0] + 30) for row in rows], pa.timestamp("us")),
            "segment": [row[1] for row in rows],
            "price": pa.array([row[2] for row in rows], pa.float64()),
            "picture": pa.array([[row[0], 1.0] for row in rows], pa.list_(pa.float32())),
            "gone": pa.array([row[3] for row in rows], pa.int64()),
        }
    )


def build(rows, folder, *, model=MODEL):
    tables = MemoryTableStore()
    pins = {view: tables.replace(view, view_rows(rows, dataset=DATASET, view=view)) for view in DATASET.views}
    return build_training_set(rows, model=model, dataset=DATASET, store=MemoryFeatureStore(tables), pins=pins, folder=folder)


def read(folder):
    return {name: pq.read_table(folder / name) for name in ("train", "calibration", "holdout")}


def digests(folder):
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


SOME = stays([(day, ("web", "desk")[day % 2], float(day), day % 2) for day in range(30)])


@given(
    events=st.lists(st.integers(0, 40), min_size=3, max_size=80).map(sorted).filter(lambda events: len(set(events)) >= 3),
    calibration=st.floats(0.01, 0.49),
    holdout=st.floats(0.01, 0.49),
)
def test_cuts_are_exhaustive_and_never_empty_and_part_no_event_time(events, calibration, holdout):
    cuts = time_cuts(np.array(events), split=SplitSpec(calibration=calibration, holdout=holdout))
    assert [cuts[0][0], cuts[0][1], cuts[1][1], cuts[2][1]] == [0, cuts[1][0], cuts[2][0], len(events)]
    assert all(begin < end for begin, end in cuts)
    assert all(events[cut - 1] < events[cut] for cut in (cuts[1][0], cuts[2][0]))


def test_cuts_of_different_times_are_the_declared_shares():
    assert time_cuts(np.arange(100), split=SplitSpec(calibration=0.15, holdout=0.2)) == ((0, 65), (65, 80), (80, 100))


@settings(max_examples=25, deadline=None)
@given(rows=st.lists(STAY, min_size=12, max_size=40), seed=st.integers(0, 9))
def test_parts_hold_each_known_label_once_in_time_order_whatever_the_order_of_rows(tmp_path_factory, rows, seed):
    table = stays(rows)
    known = table.filter(table["gone"].is_valid())
    if len(set(known["at"].to_pylist())) < 3 or len(set(known["gone"].to_pylist())) < 2:
        return
    folder, other = tmp_path_factory.mktemp("a"), tmp_path_factory.mktemp("b")
    note = build(table, folder)
    shuffled = table.take(pa.array(random.Random(seed).sample(range(len(rows)), len(rows))))
    assert build(shuffled, other) == note
    assert digests(folder) == digests(other)
    parts = read(folder)
    assert sorted(key for part in parts.values() for key in part["id"].to_pylist()) == sorted(known["id"].to_pylist())
    times = [part["at"].to_pylist() for part in parts.values()]
    assert max(times[0]) < min(times[1])
    assert max(times[1]) < min(times[2])
    assert note.rows == {name: part.num_rows for name, part in parts.items()}


def test_the_folder_holds_features_target_key_and_time_with_their_types(tmp_path):
    note = build(SOME, tmp_path)
    schema = read_record(FeatureSchema, (tmp_path / "schema.json").read_text())
    assert [(feature.name, feature.kind, feature.view, feature.entity, feature.size) for feature in schema.features] == [
        ("price", "numeric", "stays__stay", "id", 1),
        ("segment", "category", "stays__stay", "id", 1),
        ("left_at", "date", "stays__stay", "id", 1),
        ("picture", "image", "stays__stay", "id", 2),
        ("price_2d", "numeric", "stays__demand", "segment", 1),
    ]
    assert (schema.classes, schema.target, schema.key, schema.event_time) == (("0", "1"), "gone", "id", "at")
    train = read(tmp_path)["train"]
    assert train.schema.names == ["price", "segment", "left_at", "picture", "price_2d", "id", "at", "gone"]
    assert [str(kind) for kind in train.schema.types][:5] == ["double", "string", "timestamp[us]", "list<element: float>", "double"]
    assert train["gone"].type == pa.string()
    assert train.schema.metadata is None
    assert (note.rows, note.schema) == ({"train": 18, "calibration": 6, "holdout": 6}, schema)
    assert (note.first_event, note.last_event) == ("2026-01-01T00:00:00", "2026-01-10T16:00:00")


def test_a_feature_of_another_entity_is_as_old_as_its_grid(tmp_path):
    build(SOME, tmp_path)
    row = read(tmp_path)["holdout"].to_pylist()[-1]
    # The last stay, a desk one, is at day 9, 16:00; the grid stood at day 9, 0:00, over the two days before.
    earlier = [
        stay["price"]
        for stay in SOME.to_pylist()
        if stay["segment"] == "desk" and T0 + timedelta(days=7) <= stay["at"] < T0 + timedelta(days=9)
    ]
    assert row["price_2d"] == pytest.approx(sum(earlier) / len(earlier))


def test_too_few_times_are_refused(tmp_path):
    with pytest.raises(DataError, match="at 2 different event times"):
        build(stays([(0, "web", 1.0, 0), (1, "web", 1.0, 1), (1, "web", 1.0, None)]), tmp_path)


def test_a_binary_target_of_one_class_is_refused(tmp_path):
    with pytest.raises(DataError, match="needs two classes; known labels hold: 0"):
        build(stays([(day, "web", 1.0, 0) for day in range(9)]), tmp_path)


def test_a_target_that_is_not_there_is_named(tmp_path):
    with pytest.raises(DataError, match="predicts 'gone'"):
        build(SOME.drop_columns(["gone"]), tmp_path, model=MODEL)
