"""Whole chains of this room on real data: protected rows, views, joins, splits, online values, through Feast."""

from __future__ import annotations

from datetime import datetime, timedelta

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from platform_assets.specs.dataset import DatasetSpec
from platform_assets.specs.model import ModelSpec
from platform_assets.stages.features.schema import describe_view
from platform_assets.stages.features.training_set import build_training_set
from platform_assets.stages.features.views import view_rows
from platform_assets.stages.serving.online import OnlineReader
from resources.delta_tables import DeltaTableStore
from resources.feast_store import FeastFeatureStore

CATEGORIES = [
    "hotel",
    "meal",
    "country",
    "market_segment",
    "distribution_channel",
    "reserved_room_type",
    "deposit_type",
    "agent",
    "customer_type",
]
NUMBERS = [
    "lead_time", "stays_in_weekend_nights", "stays_in_week_nights", "adults", "children", "babies", "is_repeated_guest", "previous_cancellations",
    "previous_bookings_not_canceled", "adr", "total_of_special_requests",
]  # fmt: skip
DIGITS_START = datetime(2026, 1, 1)


def model_over(dataset, *, kind, target):
    return ModelSpec.model_validate(
        {
            "name": "tested",
            "owner": "team:test",
            "purpose": "Stand for a model, in a test",
            "dataset": dataset.name,
            "features": {"views": list(dataset.views)},
            "target": {"column": target, "kind": kind},
            "training": {"architecture": "tabular_mlp"},
        }
    )


@pytest.fixture
def tables(tmp_path):
    return DeltaTableStore(tmp_path / "tables")


@pytest.fixture
def store(tables, tmp_path):
    return FeastFeatureStore(tmp_path / "feast", tables=tables)


def make_views(rows, *, dataset, tables, store):
    pins = {view: tables.replace(f"features/{dataset.name}/{view}", view_rows(rows, dataset=dataset, view=view)) for view in dataset.views}
    views = [describe_view(dataset, view, pin=pin) for view, pin in pins.items()]
    store.apply(views)
    return pins, views, [store.materialise(view) for view in views]


@pytest.mark.real_data
def test_the_real_hotels_go_from_rows_to_a_training_set_and_online(real_hotels, tables, store, tmp_path):
    columns = {name: {"type": "string", "nullable": True} for name in CATEGORIES} | {
        name: {"type": "number", "nullable": True} for name in NUMBERS
    }
    features = [*CATEGORIES, *NUMBERS, "arrival_date"]
    dataset = DatasetSpec.model_validate(
        {
            "name": "hotels",
            "owner": "team:test",
            "source": {"kind": "provided"},
            "key": "booking_id",
            "event_time": "booking_date",
            "label": {"column": "is_canceled", "known_at": "arrival_date"},
            "columns": {
                **columns,
                **{key: {"type": "timestamp"} for key in ["booking_date", "arrival_date"]},
                "booking_id": {"type": "string"},
                "is_canceled": {"type": "integer", "nullable": True},
            },
            "views": {
                "booking": {"kind": "columns", "entity": "booking_id", "columns": features},
                "market_demand": {
                    "kind": "aggregates",
                    "entity": "market_segment",
                    "every": "30d",
                    "aggregates": {
                        "mean_adr_90d": {"mean": "adr", "window": "90d"},
                        "canceled_share_180d": {"mean": "is_canceled", "window": "180d"},
                    },
                },
            },
        }
    )
    rows = pq.read_table(real_hotels)
    rows = rows.append_column("booking_id", pa.array([f"b{number:06d}" for number in range(rows.num_rows)]))
    pins, views, written = make_views(rows, dataset=dataset, tables=tables, store=store)
    assert written == [119_390, 8]

    model = model_over(dataset, kind="binary", target="is_canceled")
    built = build_training_set(rows, model=model, dataset=dataset, store=store, pins=pins, folder=tmp_path / "set")
    assert sum(built.rows.values()) == 119_390
    assert built.rows["holdout"] == pytest.approx(0.15 * 119_390, rel=0.02)

    holdout = pq.read_table(tmp_path / "set" / "holdout")
    source = {
        row["booking_id"]: row
        for row in rows.select(["booking_id", "adr", "agent", "market_segment", "booking_date", "arrival_date"]).to_pylist()
    }
    some = holdout.slice(9_000, 50).to_pylist()
    assert all(
        (row["adr"], row["agent"], row["arrival_date"])
        == tuple(source[row["booking_id"]][name] for name in ("adr", "agent", "arrival_date"))
        for row in some
    )
    # What was known at the grid time before the booking, by definition and over the raw rows.
    row = some[0]
    grid = datetime(1970, 1, 1) + (row["booking_date"] - datetime(1970, 1, 1)) // timedelta(days=30) * timedelta(days=30)
    window = [
        other["adr"]
        for other in source.values()
        if other["market_segment"] == row["market_segment"] and grid - timedelta(days=90) <= other["booking_date"] < grid
    ]
    assert row["mean_adr_90d"] == pytest.approx(sum(window) / len(window))

    reader = OnlineReader(store._online)
    segments = ["Direct", "Online TA", "never"]
    assert store.online(views[1], segments) == reader.read_many("hotels__market_demand", segments)
    assert reader.read("hotels__booking", "b000007")["agent"] == rows["agent"][7].as_py()
    assert store.online(views[0], ["b000007"])[0]["arrival_date"] == rows["arrival_date"][7].as_py()


def test_images_of_digits_go_through_feast_unchanged(tables, store, tmp_path):
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = [image.tolist() for image in digits.data.astype("float32")]
    dataset = DatasetSpec.model_validate(
        {
            "name": "digits",
            "owner": "team:test",
            "source": {"kind": "digits"},
            "key": "digit_id",
            "event_time": "seen_at",
            "columns": {
                "digit_id": {"type": "string"},
                "seen_at": {"type": "timestamp"},
                "image": {"type": "image", "shape": [8, 8]},
                "digit": {"type": "integer"},
            },
            "views": {"picture": {"kind": "columns", "entity": "digit_id", "columns": ["image"]}},
        }
    )
    rows = pa.table(
        {
            "digit_id": [f"d{number:04d}" for number in range(len(images))],
            "seen_at": pa.array([DIGITS_START + timedelta(minutes=number) for number in range(len(images))], pa.timestamp("us")),
            "image": pa.array(images, pa.list_(pa.float32())),
            "digit": digits.target,
        }
    )
    pins, views, written = make_views(rows, dataset=dataset, tables=tables, store=store)
    assert written == [1797]
    assert store.online(views[0], ["d0003"]) == [{"image": images[3]}]
    assert OnlineReader(store._online).read("digits__picture", "d0003") == {"image": tuple(images[3])}

    model = model_over(dataset, kind="multiclass", target="digit")
    built = build_training_set(rows, model=model, dataset=dataset, store=store, pins=pins, folder=tmp_path / "set")
    assert built.schema.classes == tuple("0123456789")
    assert built.schema.features[0].size == 64
    parts = [pq.read_table(tmp_path / "set" / name) for name in ("train", "calibration", "holdout")]
    assert pa.concat_tables(parts)["image"].to_pylist() == images
