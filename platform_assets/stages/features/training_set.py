"""Training sets: known labels, point-in-time joined features, split by time, written as a folder. Nothing is fitted here.

The split. Rows are ordered by event time, then key. The holdout is the newest share, the calibration set the share before it. Rows of one
event time are never parted: each cut moves to the nearest change of event time, so that no part is empty and no holdout or calibration
event is as early as a train event.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from platform_assets.errors import DataError
from platform_assets.networks.shards import SPLITS, rows_of_shard, write_training_set
from platform_assets.stages.features.schema import describe_view, feature_schema
from platform_assets.stages.features.views import as_feature

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    import numpy as np
    import pyarrow as pa

    from platform_assets.ports import FeatureStore
    from platform_assets.specs.dataset import DatasetSpec
    from platform_assets.specs.model import ModelSpec, SplitSpec
    from platform_assets.specs.records import FeatureSchema, TablePin

_BINARY_CLASSES = 2


@dataclass(frozen=True)
class BuiltTrainingSet:
    """What one folder holds: rows by part, first and last event (ISO 8601), and the schema that is written beside."""

    rows: dict[str, int]
    first_event: str
    last_event: str
    schema: FeatureSchema


def build_training_set(
    rows: pa.Table, *, model: ModelSpec, dataset: DatasetSpec, store: FeatureStore, pins: Mapping[str, TablePin], folder: Path
) -> BuiltTrainingSet:
    """Join, split and write the shards of `train`, `calibration` and `holdout`, `shards.json` and `schema.json` into `folder`.

    `rows` are protected rows, of which those with a known label count; `pins` names the version of each of the model's views, by its
    declared name. Columns: the features (numeric double, category and text string, date timestamp us, image list of float), the target as
    string, key and event time. Equal rows give equal bytes, in whatever order they come. The joined rows are in memory; they are cast and
    written shard by shard, and become whole for others when the artefact store takes the folder. Too few rows, times or classes raise
    DataError.
    """
    labels = rows[model.target.column] if model.target.column in rows.column_names else None
    if labels is None:
        raise DataError(f"model {model.name} predicts {model.target.column!r}, which the rows of dataset {dataset.name} do not have")
    known = rows.filter(labels.is_valid()).sort_by([(dataset.event_time, "ascending"), (dataset.key, "ascending")])
    known = known.slice(max(0, known.num_rows - (model.split.recent_rows or known.num_rows)))
    schema = feature_schema(model, dataset=dataset, classes=_classes(known[model.target.column], model=model))
    cuts = time_cuts(_microseconds(known[dataset.event_time]), split=model.split)
    views = [describe_view(dataset, view, pin=pins[view]) for view in model.features.views]
    joined = store.historical(known, schema.features, views=views, event_time=dataset.event_time)

    def stream(begin: int, end: int) -> Iterator[pa.Table]:
        for start in range(begin, end, rows_of_shard(schema)):
            length = min(rows_of_shard(schema), end - start)
            yield _columns(joined.slice(start, length), known.slice(start, length), schema=schema)

    parts = {name: stream(begin, end) for name, (begin, end) in zip(SPLITS, cuts, strict=True)}
    written = write_training_set(folder, parts, schema=schema)
    events = known[dataset.event_time]
    return BuiltTrainingSet(
        rows=written,
        first_event=events[0].as_py().isoformat(),
        last_event=events[-1].as_py().isoformat(),
        schema=schema,
    )


def without_keys(rows: pa.Table, keys: Sequence[str], *, key: str) -> pa.Table:
    """Return the rows whose key (as text) is none of these: what a broken feed sent is not learnt from."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not keys:
        return rows
    return rows.filter(pc.invert(pc.is_in(rows[key].cast(pa.string()), value_set=pa.array(keys, pa.string()))))


def time_cuts(events: np.ndarray[Any, Any], *, split: SplitSpec) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
    """Begin and end (exclusive) of train, calibration and holdout in rows ordered by event time.

    Fewer than three different event times cannot be split by time and raise DataError.
    """
    import numpy as np

    changes = np.flatnonzero(np.diff(events)) + 1
    if len(changes) < len(SPLITS) - 1:
        raise DataError(
            f"{len(events)} rows with a known label at {len(changes) + min(len(events), 1)} different event times were found; "
            f"a split by time into {', '.join(SPLITS)} needs at least {len(SPLITS)}"
        )
    holdout = _nearest(changes[1:], len(events) * (1 - split.holdout))
    calibration = _nearest(changes[changes < holdout], len(events) * (1 - split.holdout - split.calibration))
    return (0, calibration), (calibration, holdout), (holdout, len(events))


def _nearest(changes: np.ndarray[Any, Any], target: float) -> int:
    import numpy as np

    return int(changes[np.argmin(np.abs(changes - target))])


def _classes(labels: pa.ChunkedArray, *, model: ModelSpec) -> tuple[str, ...]:
    """Classes as text, in the order of their values, so that of two the positive one (1, true) is the last."""
    import pyarrow as pa
    import pyarrow.compute as pc

    classes = tuple(pc.unique(labels).sort().cast(pa.string()).to_pylist())
    if model.target.kind == "binary" and len(classes) != _BINARY_CLASSES:
        found = ", ".join(classes) or "none"
        raise DataError(
            f"model {model.name} has the binary target {model.target.column!r}, which needs two classes; known labels hold: {found}"
        )
    if len(classes) < _BINARY_CLASSES:
        raise DataError(
            f"model {model.name}: a target needs at least two classes; {model.target.column!r} holds: {', '.join(classes) or 'none'}"
        )
    return classes


def _columns(joined: pa.Table, known: pa.Table, *, schema: FeatureSchema) -> pa.Table:
    import pyarrow as pa

    columns = {feature.name: as_feature(joined[feature.name], feature.kind) for feature in schema.features}
    columns.setdefault(schema.key, known[schema.key])
    columns.setdefault(schema.event_time, as_feature(known[schema.event_time], "date"))
    return pa.table({**columns, schema.target: known[schema.target].cast(pa.string())})


def _microseconds(column: pa.ChunkedArray) -> np.ndarray[Any, Any]:
    import pyarrow as pa

    return as_feature(column, "date").cast(pa.int64()).to_numpy()
