"""Records of assets whose table version was taken away: they are let name the newest one, so that what comes after can read it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import dagster as dg

from platform_assets import keys
from platform_assets.components.step import RECORD, key_of
from platform_assets.errors import DataError
from platform_assets.specs.record_json import from_mapping, to_json
from platform_assets.specs.records import InForce, Ingestion, TablePin

if TYPE_CHECKING:
    from collections.abc import Iterator

    from resources.parts import Parts


def refresh_records(parts: Parts, instance: dg.DagsterInstance, *, why: str) -> int:
    """Let the records of assets name the tables' newest versions, since those they name are gone; return how many changed."""
    return sum(_refresh(parts, instance, key, cls, why=why) for key, cls in _recorded(parts))


def _recorded(parts: Parts) -> Iterator[tuple[list[str], type[Any]]]:
    kinds: dict[str, type[Any]] = {"ingested": Ingestion, "validated": InForce, "quarantined": TablePin, "protected": TablePin}
    for name, dataset in parts.catalogue.datasets.items():
        yield from ((keys.dataset_key(name, state), cls) for state, cls in kinds.items())
        yield from ((keys.features_key(name, view), TablePin) for view in dataset.views)
    yield from ((keys.model_key(model, "production_log"), TablePin) for model in parts.catalogue.models)


def _refresh(parts: Parts, instance: dg.DagsterInstance, key: list[str], cls: type[Any], *, why: str) -> bool:
    event = instance.get_latest_materialization_event(key_of(key))
    made = event.asset_materialization if event else None
    pin = parts.tables.pin(keys.table_name(key))
    if made is None or pin is None or RECORD not in made.metadata:
        return False
    record = from_mapping(cls, dict(made.metadata[RECORD].value))  # type: ignore[arg-type]
    named: TablePin = record if cls is TablePin else record.pin
    if named == pin or _readable(parts, named):
        return False
    new = pin if cls is TablePin else replace(record, pin=pin)
    metadata: dict[str, Any] = {
        **made.metadata,
        RECORD: dg.MetadataValue.json(json.loads(to_json(new))),
        "changed_by": why,
        "dagster/row_count": pin.rows,
    }
    tags = {"dagster/data_version": pin.content_hash[:32]}
    instance.report_runless_asset_event(dg.AssetMaterialization(key_of(key), metadata=metadata, tags=tags, description=why))
    return True


def _readable(parts: Parts, pin: TablePin) -> bool:
    try:
        parts.tables.read(pin, columns=[])
    except (DataError, FileNotFoundError):
        return False
    return True
