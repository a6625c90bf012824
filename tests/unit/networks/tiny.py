"""Tiny training sets, made whole in memory or in a folder, for the rooms that train."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa

from platform_assets.networks.plans import TrainingPlan
from platform_assets.networks.shards import write_training_set
from platform_assets.specs.records import Feature, FeatureSchema

TABULAR = FeatureSchema(
    features=(
        Feature("channel", "category", "view", "key"),
        Feature("price", "numeric", "view", "key"),
        Feature("day", "date", "view", "key"),
        Feature("country", "category", "view", "key"),
        Feature("nights", "numeric", "view", "key"),
    ),
    target="label", classes=("0", "1"), key="key", event_time="at",
)  # fmt: skip
REVIEWS = FeatureSchema(
    (Feature("review", "text", "view", "key"), Feature("channel", "category", "view", "key"), Feature("price", "numeric", "view", "key")),
    "label", ("0", "1"), "key", "at",
)  # fmt: skip
PICTURES = FeatureSchema((Feature("image", "image", "view", "key", 64),), "label", ("a", "b", "c"), "key", "at")


class Silent:
    """A report nobody reads."""

    def step(self, name: str, **figures: float | str) -> None:
        del name, figures


def tabular(rows: int = 240, *, seed: int = 0) -> pa.Table:
    rng = np.random.default_rng(seed)
    channel = rng.choice(["web", "phone", "desk"], rows)
    price = rng.gamma(4, 25, rows)
    label = ((price > 100) ^ (channel == "web")).astype(int)
    price[rng.random(rows) < 0.1] = np.nan
    days = [datetime(2024, 1, 1) + timedelta(days=int(day)) for day in rng.integers(0, 700, rows)]
    country = [None if rng.random() < 0.1 else str(value) for value in rng.choice(["AE", "OM", "IN"], rows)]
    return pa.table({
        "channel": pa.array(channel.tolist()), "price": pa.array(price, from_pandas=True), "day": pa.array(days, pa.timestamp("us")),
        "country": pa.array(country, pa.string()), "nights": pa.array(rng.integers(1, 9, rows).astype(float)), "label": pa.array(label.astype(str).tolist()),
    })  # fmt: skip


def pictures(rows: int = 120, *, seed: int = 0) -> pa.Table:
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 3, rows)
    images = rng.random((rows, 8, 8)) * 4
    for row, kind in enumerate(label):
        images[row, kind * 2 : kind * 2 + 3, 2:6] += 10
    return pa.table(
        {
            "image": pa.array(images.reshape(rows, 64).astype(np.float32).tolist(), pa.list_(pa.float32(), 64)),
            "label": np.array(list("abc"))[label].tolist(),
        }
    )


def reviews(rows: int = 200, *, seed: int = 0) -> pa.Table:
    """Guests' words, English and Arabic, that say what the label is."""
    rng = np.random.default_rng(seed)
    words = {0: ["clean", "quiet", "kind", "نظيفة", "هادئة"], 1: ["dirty", "noisy", "rude", "قذرة", "صاخبة"]}
    label = rng.integers(0, 2, rows)
    said = [
        " ".join(rng.permutation(["the room was", *rng.choice(words[int(kind)], 3), *rng.choice(["hotel", "breakfast!", "\n"], 2)]))
        for kind in label
    ]
    return pa.table({
        "review": pa.array([None if rng.random() < 0.05 else text for text in said]), "channel": rng.choice(["web", "desk"], rows).tolist(),
        "price": pa.array(rng.gamma(4, 25, rows)), "label": label.astype(str).tolist(),
    })  # fmt: skip


def write_set(folder: Path, table: pa.Table, schema: FeatureSchema, *, train: float = 0.6, shard_rows: int = 50) -> Path:
    first, second = int(table.num_rows * train), int(table.num_rows * (1 + train) / 2)
    parts = {"train": [table[:first]], "calibration": [table[first:second]], "holdout": [table[second:]]}
    write_training_set(folder, parts, schema=schema, shard_rows=shard_rows)
    return folder


def plan(architecture: str, *, kind: str = "binary", epochs: int = 2, seed: int = 3) -> TrainingPlan:
    return TrainingPlan(
        architecture, kind, width=16, depth=2, heads=2, max_tokens=16, vocabulary=200, epochs=epochs, batch_size=16, seed=seed, threads=1
    )  # fmt: skip


CASES = {
    "tabular_transformer": (tabular, TABULAR, "binary"),
    "tabular_mlp": (tabular, TABULAR, "binary"),
    "vision_transformer": (pictures, PICTURES, "multiclass"),
    "convolutional": (pictures, PICTURES, "multiclass"),
    "text_transformer": (reviews, REVIEWS, "binary"),
}
