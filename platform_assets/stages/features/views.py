"""Rows of feature views from protected rows. Nothing is stored or joined here.

Every function is a pure function of its rows and blind to their order: equal rows give equal tables.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from platform_assets.errors import DataError
from platform_assets.specs.dataset import Aggregate, AggregatesView, ColumnsView, DatasetSpec
from platform_assets.stages.features.schema import EVENT_TIMESTAMP, view_kinds

if TYPE_CHECKING:
    from datetime import timedelta

    import numpy as np
    import pyarrow as pa

    from platform_assets.specs.records import FeatureKind


def view_rows(rows: pa.Table, *, dataset: DatasetSpec, view: str) -> pa.Table:
    """Compute the rows of one declared view.

    Columns: the entity (string), `event_timestamp` (timestamp us), then the features: numbers double, categories string (booleans
    `true`/`false`), dates timestamp us, images list of float. Rows without an entity are left out. A column that the rows
    lack raises DataError.
    """
    spec = dataset.views[view]
    if EVENT_TIMESTAMP in view_kinds(dataset, view):
        raise DataError(
            f"view {view} of dataset {dataset.name} names a feature {EVENT_TIMESTAMP!r}, which is the name of the row's time; rename it"
        )
    needed = {dataset.key, dataset.event_time, spec.entity} | _sources(spec, dataset)
    missing = sorted(needed - set(rows.column_names))
    if missing:
        raise DataError(
            f"view {view} of dataset {dataset.name} needs the columns {', '.join(missing)}, which its protected rows do not have"
        )
    rows = rows.filter(rows[spec.entity].is_valid())
    if isinstance(spec, ColumnsView):
        return _columns(rows, spec=spec, dataset=dataset, kinds=view_kinds(dataset, view))
    return _aggregates(rows, spec=spec, dataset=dataset)


def as_feature(column: pa.ChunkedArray, kind: FeatureKind) -> pa.ChunkedArray:
    """Cast a column to the Arrow type of its kind of feature; what cannot be cast raises DataError."""
    import pyarrow as pa

    types = {
        "numeric": pa.float64(), "category": pa.string(), "text": pa.string(), "date": pa.timestamp("us"), "image": pa.list_(pa.float32()),
    }  # fmt: skip
    try:
        return column.cast(types[kind])
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise DataError(f"a column of type {column.type} cannot be a {kind} feature: {error}") from error


def _sources(spec: ColumnsView | AggregatesView, dataset: DatasetSpec) -> set[str]:
    if isinstance(spec, ColumnsView):
        return set(spec.columns)
    means = {aggregate.mean for aggregate in spec.aggregates.values()}
    return means | ({dataset.label.known_at} if dataset.label and dataset.label.column in means else set())


def _columns(rows: pa.Table, *, spec: ColumnsView, dataset: DatasetSpec, kinds: dict[str, FeatureKind]) -> pa.Table:
    import pyarrow as pa

    ordered = rows.sort_by([(dataset.event_time, "ascending"), (dataset.key, "ascending")])
    features = {name: as_feature(ordered[name], kind) for name, kind in kinds.items()}
    stamps = as_feature(ordered[dataset.event_time], "date")
    return pa.table({spec.entity: ordered[spec.entity].cast(pa.string()), EVENT_TIMESTAMP: stamps, **features}).combine_chunks()


def _aggregates(rows: pa.Table, *, spec: AggregatesView, dataset: DatasetSpec) -> pa.Table:
    """Trailing means on the grid of multiples of `every` since 1970-01-01.

    An entity's grid begins after its first event and ends, for all alike, before the newest event: at its very time
    further rows could still come, with a label known at once.
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    entities = rows[spec.entity].cast(pa.string()).combine_chunks()
    names = pc.unique(entities).sort()
    codes = pc.index_in(entities, value_set=names).to_numpy(zero_copy_only=False).astype(np.int64)
    events = _microseconds(rows[dataset.event_time])
    every = _span(spec.every)
    first = np.full(len(names), np.iinfo(np.int64).max)
    np.minimum.at(first, codes, events)
    start = first // every + 1  # strictly after the first event
    stop = ((events.max() - 1) // every if len(events) else 0) + 1
    counts = np.maximum(stop - start, 0)
    grid_codes = np.repeat(np.arange(len(names)), counts)
    offsets = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    grid = (np.repeat(start, counts) + offsets) * every
    features = {
        name: _trailing_mean(rows, codes=codes, aggregate=aggregate, dataset=dataset, grid=(grid_codes, grid))
        for name, aggregate in spec.aggregates.items()
    }
    stamps = pa.array(grid, pa.int64()).cast(pa.timestamp("us"))
    return pa.table({spec.entity: names.take(pa.array(grid_codes)), EVENT_TIMESTAMP: stamps, **features})


def _trailing_mean(
    rows: pa.Table,
    *,
    codes: np.ndarray[Any, Any],
    aggregate: Aggregate,
    dataset: DatasetSpec,
    grid: tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]],
) -> pa.Array:
    """Mean per grid time g over event times in [g - window, g), of a label over known_at in (g - window, g].

    Each window is summed on its own, not as a difference of running sums: its value then depends on its own rows alone, to the last bit.
    """
    import numpy as np
    import pyarrow as pa

    is_label = dataset.label is not None and aggregate.mean == dataset.label.column
    # Known at g counts at g, an event at g does not: one microsecond earlier makes both the same half-open window.
    times = (
        _microseconds(rows[dataset.label.known_at], missing=0) - 1
        if is_label and dataset.label
        else _microseconds(rows[dataset.event_time])
    )
    values = as_feature(rows[aggregate.mean], "numeric").to_numpy()
    usable = ~np.isnan(values)
    if is_label and dataset.label:
        usable &= rows[dataset.label.known_at].is_valid().to_numpy()
    codes, times, values = codes[usable], times[usable], values[usable]
    order = np.lexsort((values, times, codes))
    codes, times, values = codes[order], times[order], values[order]
    entity_start = np.searchsorted(codes, np.arange(int(grid[0].max(initial=-1)) + 2))
    low, high = np.empty(len(grid[0]), np.int64), np.empty(len(grid[0]), np.int64)
    for code in np.unique(grid[0]):
        here = slice(*np.searchsorted(grid[0], [code, code + 1]))
        begin, own = entity_start[code], times[entity_start[code] : entity_start[code + 1]]
        low[here] = begin + np.searchsorted(own, grid[1][here] - _span(aggregate.window))
        high[here] = begin + np.searchsorted(own, grid[1][here])
    counts = high - low
    bounds = np.stack([low, high], axis=1).ravel()
    sums = np.add.reduceat(np.append(values, 0.0), bounds)[::2] if len(bounds) else np.empty(0)
    means = np.divide(sums, counts, out=np.zeros(len(counts)), where=counts > 0)
    return pa.array(means, mask=counts == 0)


def _microseconds(column: pa.ChunkedArray, *, missing: int | None = None) -> np.ndarray[Any, Any]:
    import pyarrow as pa

    whole = as_feature(column, "date").cast(pa.int64())
    if missing is not None:
        whole = whole.fill_null(missing)
    if whole.null_count:
        raise DataError(f"{whole.null_count} rows have no event time; every row of a dataset needs one")
    return whole.to_numpy()


def _span(span: timedelta) -> int:
    return int(span.total_seconds() * 1_000_000)
