"""Feature schemas from declarations."""

from __future__ import annotations

import pytest

from platform_assets.errors import SpecError
from platform_assets.specs.dataset import DatasetSpec
from platform_assets.specs.model import ModelSpec
from platform_assets.specs.records import TablePin
from platform_assets.stages.features.schema import describe_view, feature_schema

DATASET = DatasetSpec.model_validate(
    {
        "name": "stays",
        "owner": "team:test",
        "source": {"kind": "provided"},
        "key": "id",
        "event_time": "at",
        "columns": {
            "id": {"type": "string"},
            "at": {"type": "timestamp"},
            "price": {"type": "number"},
            "repeat": {"type": "boolean"},
            "guest": {"type": "integer", "personal": {"method": "pseudonymise"}},
            "face": {"type": "image", "shape": [4, 3]},
            "gone": {"type": "boolean"},
        },
        "views": {
            "stay": {"kind": "columns", "entity": "id", "columns": ["price", "repeat", "at", "guest", "face"]},
            "again": {"kind": "columns", "entity": "id", "columns": ["price", "gone"]},
            "demand": {
                "kind": "aggregates",
                "entity": "repeat",
                "every": "1d",
                "aggregates": {"price_2d": {"mean": "price", "window": "2d"}},
            },
        },
    }
)


def schema_of(views, without=()):
    model = ModelSpec.model_validate(
        {
            "name": "leavers",
            "owner": "team:test",
            "purpose": "Predict who leaves, for a test",
            "dataset": "stays",
            "features": {"views": views, "without": without},
            "target": {"column": "gone", "kind": "binary"},
            "training": {"architecture": "tabular_mlp"},
        }
    )
    return feature_schema(model, dataset=DATASET, classes=("false", "true"))


def test_kinds_follow_from_column_types_and_what_protection_makes_of_them():
    schema = schema_of(["demand", "stay"])
    kinds = {feature.name: feature.kind for feature in schema.features}
    assert kinds == {"price_2d": "numeric", "price": "numeric", "repeat": "category", "at": "date", "guest": "category", "face": "image"}
    assert list(kinds) == ["price_2d", "price", "repeat", "at", "guest", "face"]
    assert schema.of_kind("image")[0].size == 12


def test_features_left_out_are_left_out():
    assert [feature.name for feature in schema_of(["stay"], without=["at", "face", "guest"]).features] == ["price", "repeat"]


def test_all_faults_are_told_at_once():
    with pytest.raises(SpecError) as caught:
        schema_of(["stay", "again"])
    assert [fault.message for fault in caught.value.faults] == [
        "feature 'price' is given by more than one view; rename one",
        "the target 'gone' is among the features; leave it out",
    ]


def test_an_unknown_view_lists_the_known_ones():
    with pytest.raises(SpecError, match="has no view 'guests'; it has: stay, again, demand"):
        schema_of(["guests"])


def test_a_described_view_carries_its_pin_and_a_name_unique_over_datasets():
    pin = TablePin("features/stays/demand", 3, 10, "abc")
    view = describe_view(DATASET, "demand", pin=pin)
    assert (view.name, view.entity, view.kinds, view.pin) == ("stays__demand", "repeat", {"price_2d": "numeric"}, pin)
