"""From a source into the `ingested` table, chunk by chunk, so that a delivery larger than memory goes through."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from platform_assets.errors import DataError
from platform_assets.keys import dataset_key, table_name
from platform_assets.specs.records import Ingestion

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from platform_assets.ports import Source, TableStore
    from platform_assets.specs.dataset import DatasetSpec


def ingest(
    spec: DatasetSpec,
    *,
    source: Source,
    store: TableStore,
    until: datetime | None,
    since: datetime | None = None,
    report: Callable[[int], None] | None = None,
) -> Ingestion:
    """Merge the rows known by `until` into `dataset/<name>/ingested` by key; the same delivery again makes no new version.

    Rows whose event is before `since` are past their retention and not taken in. `report` is told the rows seen so far after every chunk.
    `size_bytes` counts the rows as Arrow in memory. A chunk is one commit: killed in between, the next call goes on from there. Raises
    DataError where a row has no key, where one key names two events (a wrong key would silently drop rows), or where nothing is known by
    then.
    """
    table = table_name(dataset_key(spec.name, "ingested"))
    seen = new = changed = size = 0
    for delivered in source.read(until):
        chunk = delivered if since is None else delivered.filter(pc.greater_equal(delivered[spec.event_time], pa.scalar(since)))
        if not chunk.num_rows:
            continue
        _check_keys(chunk, spec)
        inserted, updated = store.merge(table, chunk, key=spec.key)
        seen, new, changed, size = seen + chunk.num_rows, new + inserted, changed + updated, size + chunk.nbytes
        if report is not None:
            report(seen)
    pin = store.pin(table)
    if pin is None:
        by = "" if until is None else f" by {until.isoformat()}"
        raise DataError(
            f"dataset {spec.name}: the source has no row{by}; deliver rows with an earlier {spec.event_time}, or move the clock on"
        )
    return Ingestion(
        pin=pin, rows_seen=seen, rows_new=new, rows_changed=changed, size_bytes=size, as_of="" if until is None else until.isoformat()
    )


def _check_keys(rows: pa.Table, spec: DatasetSpec) -> None:
    nulls = rows[spec.key].null_count
    if nulls:
        raise DataError(
            f"dataset {spec.name}: {nulls} rows have no {spec.key}, the key; fill it in the source, or leave the column out to have it made"
        )
    # A row delivered twice (an overlapping export, a label filled in) keeps its event time; two events under one key mean a wrong key.
    spread = rows.group_by(spec.key).aggregate([(spec.event_time, "count_distinct")])
    clashing = spread.filter(pc.greater(spread[f"{spec.event_time}_count_distinct"], 1))
    if clashing.num_rows:
        raise DataError(
            f"dataset {spec.name}: {clashing.num_rows} values of the key {spec.key} name rows of different {spec.event_time}; "
            "declare a key that names one row, or one that the source lacks to have it made"
        )
