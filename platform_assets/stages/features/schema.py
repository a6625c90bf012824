"""Which features a model reads, of which kind, from which view. No rows are touched here."""

from __future__ import annotations

from collections import Counter
from math import prod
from typing import TYPE_CHECKING

from platform_assets.errors import Fault, SpecError
from platform_assets.keys import view_name
from platform_assets.specs.dataset import Column, ColumnsView, DatasetSpec, Pseudonymise
from platform_assets.specs.records import Feature, FeatureKind, FeatureSchema, TablePin, ViewTable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from platform_assets.specs.model import ModelSpec

EVENT_TIMESTAMP = "event_timestamp"
_KINDS: dict[str, FeatureKind] = {
    "integer": "numeric",
    "number": "numeric",
    "string": "category",
    "boolean": "category",
    "timestamp": "date",
    "image": "image",
    "text": "text",
}


def column_kind(column: Column) -> FeatureKind:
    """Kind of a column as a feature; a pseudonym is a category whatever it stands for."""
    return "category" if isinstance(column.personal, Pseudonymise) else _KINDS[column.type]


def view_kinds(dataset: DatasetSpec, view: str) -> dict[str, FeatureKind]:
    """Features of a view, in declared order, with their kinds."""
    spec = dataset.views[view]
    if isinstance(spec, ColumnsView):
        return {name: column_kind(dataset.columns[name]) for name in spec.columns}
    return dict.fromkeys(spec.aggregates, "numeric")


def describe_view(dataset: DatasetSpec, view: str, *, pin: TablePin) -> ViewTable:
    """Name a view and the version of its table, as the feature store wants it."""
    return ViewTable(name=view_name(dataset.name, view), entity=dataset.views[view].entity, kinds=view_kinds(dataset, view), pin=pin)


def feature_schema(model: ModelSpec, *, dataset: DatasetSpec, classes: Sequence[str]) -> FeatureSchema:
    """Inputs of a model in declared order, its target and classes.

    Raises SpecError, all faults at once: unknown view, a name given by two views, the target as a feature, nothing left after `without`.
    """
    unknown = [view for view in model.features.views if view not in dataset.views]
    if unknown:
        choices = ", ".join(dataset.views) or "none"
        raise SpecError(
            [_fault(model, "features.views", f"dataset {dataset.name} has no view {view!r}; it has: {choices}") for view in unknown]
        )
    features = tuple(
        feature for view in model.features.views for feature in _features_of(dataset, view) if feature.name not in model.features.without
    )
    repeated = [name for name, times in Counter(feature.name for feature in features).items() if times > 1]
    faults = [_fault(model, "features.views", f"feature {name!r} is given by more than one view; rename one") for name in repeated]
    if any(feature.name == model.target.column for feature in features):
        faults.append(_fault(model, "features.without", f"the target {model.target.column!r} is among the features; leave it out"))
    if not features:
        faults.append(_fault(model, "features.without", "no feature is left; name fewer"))
    if faults:
        raise SpecError(faults)
    return FeatureSchema(
        features=features, target=model.target.column, classes=tuple(classes), key=dataset.key, event_time=dataset.event_time
    )


def _features_of(dataset: DatasetSpec, view: str) -> list[Feature]:
    entity, name = dataset.views[view].entity, view_name(dataset.name, view)
    kinds = view_kinds(dataset, view)
    return [Feature(name=column, kind=kind, view=name, entity=entity, size=_size(dataset, column, kind)) for column, kind in kinds.items()]


def _size(dataset: DatasetSpec, column: str, kind: FeatureKind) -> int:
    return prod(dataset.columns[column].shape or (1,)) if kind == "image" else 1


def _fault(model: ModelSpec, field: str, message: str) -> Fault:
    return Fault(file=f"model {model.name}", field=field, message=message)
