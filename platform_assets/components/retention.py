"""Retention: rows whose declared period is over leave every version of every table, online values and training sets.

GDPR article 5(1)(e), UAE PDPL article 5: kept no longer than the purpose needs. Time is the data's: a row is as old as its event on the
clock of its dataset. Each part can be done twice, so that a killed run is gone on with by the next one.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from platform_assets import keys
from platform_assets.components.fresh_records import refresh_records
from platform_assets.components.subjects import RETAINED
from platform_assets.networks.shards import LIST_FILE, SPLITS
from platform_assets.specs.subjects import Marks, RetentionDone
from platform_assets.stages.features.schema import EVENT_TIMESTAMP

if TYPE_CHECKING:
    from pathlib import Path

    import dagster as dg

    from platform_assets.specs.dataset import DatasetSpec
    from resources.parts import Parts

_LOG_TIME = "event_time"


def enforce(dataset: DatasetSpec, parts: Parts, instance: dg.DagsterInstance, *, actor: str) -> RetentionDone:
    """Remove what is past its period in a dataset, and in the production logs of models on it; say what was removed in the audit log."""
    now = parts.clock.now(dataset.name)
    rows: dict[str, int] = {}
    sets: list[str] = []
    before = now - dataset.retention if dataset.retention else None
    if before is not None:
        _forget_online(dataset, parts, before)
        own = [(keys.dataset_key(dataset.name, state), dataset.event_time) for state in keys.DATASET_STATES]
        for key, column in [*own, *((keys.features_key(dataset.name, view), EVENT_TIMESTAMP) for view in dataset.views)]:
            rows[keys.table_name(key)] = parts.tables.erase(keys.table_name(key), Marks(before={column: before}))
        sets = [digest for digest in parts.artefacts.digests() if _holds(parts.artefacts.peek(digest), dataset, before)]
        for digest in sets:
            parts.artefacts.remove(digest)
    for name, model in parts.catalogue.models.items():
        if parts.catalogue.dataset_of(name).name == dataset.name and model.governance.retention:
            table = keys.table_name(keys.model_key(name, "production_log"))
            rows[table] = parts.tables.erase(table, Marks(before={_LOG_TIME: now - model.governance.retention}))
    removed = {table: count for table, count in rows.items() if count}
    done = RetentionDone(before.isoformat() if before else "", removed, tuple(sets), datetime.now(tz=UTC).isoformat(timespec="seconds"))
    if removed or sets:
        refresh_records(parts, instance, why=f"retention of {dataset.name}")
    if rows:
        detail = {"before": done.before, "rows": sum(removed.values()), "tables": removed, "training_sets": sets}
        parts.audit.append(RETAINED, subject=f"dataset/{dataset.name}", actor=actor, detail=detail)
    return done


def _forget_online(dataset: DatasetSpec, parts: Parts, before: datetime) -> None:
    """Drop online values of rows that are past their period; those of groups of rows are made anew by the next refresh."""
    table = keys.table_name(keys.dataset_key(dataset.name, "protected"))
    old = parts.tables.search(table, Marks(before={dataset.event_time: before}), columns=[dataset.key])[dataset.key].to_pylist()
    for view, declared in dataset.views.items():
        if old and declared.entity == dataset.key:
            parts.features.forget(keys.view_name(dataset.name, view), sorted(set(old)))


def _holds(folder: Path, dataset: DatasetSpec, before: datetime) -> bool:
    """Whether a training set of this dataset holds an earlier event."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    if not (folder / LIST_FILE).is_file():
        return False
    schema = json.loads((folder / "schema.json").read_bytes())
    if (schema["key"], schema["event_time"]) != (dataset.key, dataset.event_time):
        return False
    for file in (file for split in SPLITS for file in (folder / split).glob("*.parquet")):
        earliest = pc.min(pq.read_table(file, columns=[dataset.event_time])[dataset.event_time].cast(pa.timestamp("us"))).as_py()
        if earliest is not None and earliest < before:
            return True
    return False
