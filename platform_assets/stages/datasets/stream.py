"""The stream rule: what of a dataset is known when, and where its history ends and live traffic begins. Pure, over tables."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from platform_assets.errors import DataError

if TYPE_CHECKING:
    from platform_assets.specs.dataset import DatasetSpec


def known_by(rows: pa.Table, *, spec: DatasetSpec, until: datetime | None) -> pa.Table:
    """Keep rows whose event is not after `until`, and make null every label not known by then.

    Rows without an event time are kept (the contract counts them); a label whose time of knowing is missing is not known.
    """
    if until is None:
        return rows
    moment = pa.scalar(until, pa.timestamp("us"))
    events = rows[spec.event_time]
    rows = rows.filter(pc.or_kleene(pc.is_null(events), pc.less_equal(events, moment)))
    if spec.label is None:
        return rows
    known = pc.fill_null(pc.less_equal(rows[spec.label.known_at], moment), False)
    place = rows.column_names.index(spec.label.column)
    labels = rows[spec.label.column]
    return rows.set_column(place, rows.field(place), pc.if_else(known, labels, pa.scalar(None, labels.type)))


def history_end(rows: pa.Table, *, spec: DatasetSpec) -> datetime | None:
    """Give T0: the earliest time a label became known plus the declared history; None where no history is declared."""
    if spec.history is None:
        return None
    column = spec.label.known_at if spec.label is not None else spec.event_time
    first = pc.min(rows[column]).as_py()
    if first is None:
        raise DataError(
            f"dataset {spec.name}: column {column} holds no time, so that the end of its history cannot be told; fill it in the source"
        )
    return first + spec.history


def after(rows: pa.Table, *, spec: DatasetSpec, start: datetime) -> pa.Table:
    """Give the rows whose event is after `start`, in order of their events; equal times keep the order they came in."""
    later = rows.filter(pc.greater(rows[spec.event_time], pa.scalar(start, pa.timestamp("us"))))
    return later.take(pc.sort_indices(later, sort_keys=[(spec.event_time, "ascending")]))
