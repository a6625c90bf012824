"""Rules over datasets and models that span fields or files. Rules of compute are in compute_rules.py, single-field rules in the specs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from platform_assets.errors import Fault
from platform_assets.specs.compute_rules import check_training
from platform_assets.specs.dataset import AggregatesView, ColumnsView, DatasetSpec, Drop, Pseudonymise
from platform_assets.specs.model import METRICS, ModelSpec
from platform_assets.specs.privacy_rules import check_privacy
from platform_assets.specs.words import listed


def check_dataset(dataset: DatasetSpec, datasets: Mapping[str, DatasetSpec]) -> Iterator[Fault]:
    """Hold a dataset, `extends` resolved, against itself and the others."""
    for field in ("extends", "stands_in_for"):
        other = getattr(dataset, field)
        if other is not None and other not in datasets:
            yield Fault("", field, f"no dataset {other!r}; declared: {listed(datasets)}")
    if dataset.extends and (datasets.get(dataset.extends) or dataset).extends:
        yield Fault("", "extends", f"{dataset.extends!r} extends another dataset itself; one level is allowed")
    if dataset.columns:
        yield from _check_columns(dataset)
    else:
        yield Fault("", "columns", "no column is declared; list every column to be ingested")


def _check_columns(dataset: DatasetSpec) -> Iterator[Fault]:
    columns = dataset.columns

    def known(field: str, column: str) -> Iterator[Fault]:
        if column not in columns:
            yield Fault("", field, f"no column {column!r} in dataset {dataset.name!r}; declared: {listed(columns)}")

    yield from known("event_time", dataset.event_time)
    yield from known("key", dataset.key)
    yield from known("subject", dataset.subject or dataset.key)
    if dataset.event_time in columns and columns[dataset.event_time].type != "timestamp":
        yield Fault("", "event_time", f"{dataset.event_time!r} is {columns[dataset.event_time].type}; event time is a timestamp")
    if dataset.label:
        yield from known("label.column", dataset.label.column)
        yield from known("label.known_at", dataset.label.known_at)
    if dataset.history and not dataset.label:
        yield Fault("", "history", "history is a span of known labels, and this dataset declares no label")
    for view_name, view in dataset.views.items():
        yield from known(f"views.{view_name}.entity", view.entity)
        for field, column in _view_columns(view):
            yield from known(f"views.{view_name}.{field}", column)
            declared = columns.get(column)
            if declared and isinstance(declared.personal, Drop):
                yield Fault("", f"views.{view_name}.{field}", f"{column!r} is dropped as personal data; it cannot be a feature")
            if dataset.label and column == dataset.label.column and isinstance(view, ColumnsView):
                yield Fault("", f"views.{view_name}.{field}", f"{column!r} is the label; it is not known at the event time")


def _view_columns(view: ColumnsView | AggregatesView) -> list[tuple[str, str]]:
    if isinstance(view, ColumnsView):
        return [("columns", column) for column in view.columns]
    return [(f"aggregates.{name}.mean", aggregate.mean) for name, aggregate in view.aggregates.items()]


def view_features(dataset: DatasetSpec, view_name: str) -> tuple[str, ...]:
    """Names of the features that a view gives."""
    view = dataset.views[view_name]
    return tuple(view.columns) if isinstance(view, ColumnsView) else tuple(view.aggregates)


def check_model(model: ModelSpec, datasets: Mapping[str, DatasetSpec]) -> Iterator[Fault]:
    """Hold a model against itself and the dataset it reads."""
    yield from check_training(model.training)
    yield from check_privacy(model)
    dataset = datasets.get(model.dataset)
    if dataset is None:
        yield Fault("", "dataset", f"no dataset {model.dataset!r}; declared: {listed(datasets)}")
        return
    yield from _check_features(model, dataset)
    yield from _check_promises(model, dataset)


def _check_features(model: ModelSpec, dataset: DatasetSpec) -> Iterator[Fault]:
    unknown = [view for view in model.features.views if view not in dataset.views]
    for view in unknown:
        yield Fault("", "features.views", f"no view {view!r} in dataset {dataset.name!r}; declared: {listed(dataset.views)}")
    names = [feature for view in model.features.views if view in dataset.views for feature in view_features(dataset, view)]
    for feature in model.features.without:
        if not unknown and feature not in names:
            yield Fault(
                "", "features.without", f"no feature {feature!r} in views {', '.join(model.features.views)}; they give: {listed(names)}"
            )
    for feature in sorted({feature for feature in names if names.count(feature) > 1}):
        yield Fault("", "features.views", f"{feature!r} comes from more than one view; name it in only one")
    read = [dataset.columns[name] for name in names if name in dataset.columns and name not in model.features.without]
    kinds = {column.type for column in read if not isinstance(column.personal, Pseudonymise)}
    for kind in ("image", "text"):
        if names and not _takes(model.training.architecture, kind, given=kind in kinds):
            found = f"{'an' if kind == 'image' else 'a'} {kind} column" if kind in kinds else f"no {kind} column"
            yield Fault("", "training.architecture", f"{model.training.architecture!r} does not fit: the views give {found}")
    if dataset.label is None or model.target.column != dataset.label.column:
        label = dataset.label.column if dataset.label else "none"
        yield Fault("", "target.column", f"{model.target.column!r} is not the label of dataset {dataset.name!r} (its label: {label})")


def _takes(architecture: str, kind: str, *, given: bool) -> bool:
    """Tell whether a network does with, or without, a column of this kind."""
    needs = {"vision_transformer": "image", "convolutional": "image", "text_transformer": "text"}.get(architecture)
    may = architecture == "custom" or (architecture == "tabular_mlp" and kind == "text")
    return given == (needs == kind) or (given and may)


def _check_promises(model: ModelSpec, dataset: DatasetSpec) -> Iterator[Fault]:
    valid = METRICS[model.target.kind]
    for gate in model.gates:
        if gate.removesuffix("_vs_champion") not in valid:
            names = listed([*valid, *(f"{metric}_vs_champion" for metric in valid)])
            yield Fault("", f"gates.{gate}", f"no such metric of a {model.target.kind} model; valid: {names}")
    if model.split.calibration + model.split.holdout >= 1:
        yield Fault("", "split", "calibration and holdout together leave nothing to train on")
    if model.training.width % model.training.heads and model.training.architecture.endswith("_transformer"):
        yield Fault("", "training.width", f"width {model.training.width} is not a multiple of heads {model.training.heads}")
    if model.governance.residency != dataset.residency:
        message = f"{model.governance.residency} is not where dataset {dataset.name!r} may be ({dataset.residency})"
        yield Fault("", "governance.residency", message)
