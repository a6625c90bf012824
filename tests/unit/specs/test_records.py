"""Records go to JSON and back unchanged, and strangers are refused."""

from __future__ import annotations

import pytest

from platform_assets.specs.record_json import read_record, to_json
from platform_assets.specs.records import Feature, FeatureSchema, TablePin, TrainingSet


def test_nested_records_survive_the_round_trip() -> None:
    pin = TablePin("dataset/x/protected", 3, 10, "abc")
    record = TrainingSet("d", {"train": 7}, pin, {"booking": pin}, "2020-01-01", "2020-02-01")
    assert read_record(TrainingSet, to_json(record)) == record
    schema = FeatureSchema((Feature("a", "numeric", "v", "e"), Feature("p", "image", "v", "e", 64)), "t", ("0", "1"), "k", "at")
    assert read_record(FeatureSchema, to_json(schema)) == schema


def test_unknown_and_missing_fields_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown fields"):
        read_record(TablePin, '{"table":"t","version":1,"rows":2,"content_hash":"h","more":1}')
    with pytest.raises(ValueError, match="TablePin"):
        read_record(TablePin, '{"table":"t"}')
