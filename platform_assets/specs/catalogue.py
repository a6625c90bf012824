"""Every declaration of a tree, read together. Rules that span files live here; single-field rules live in the specs.

This pass comes before Dagster's own loader, which stops at the first bad file: all faults of all files are reported at once.
"""

from __future__ import annotations

import copy
import difflib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from platform_assets.errors import Fault, SpecError
from platform_assets.specs.dataset import AggregatesView, ColumnsView, DatasetSpec, Drop
from platform_assets.specs.model import METRICS, ModelSpec

DATASET_TYPE = "platform_assets.components.dataset.Dataset"
MODEL_TYPE = "platform_assets.components.model_pipeline.ModelPipeline"
MAX_FILE_BYTES = 1 << 20
_SPECS: dict[str, type[BaseModel]] = {DATASET_TYPE: DatasetSpec, MODEL_TYPE: ModelSpec}


@dataclass(frozen=True)
class Catalogue:
    """All datasets (with `extends` resolved) and models by name, and the file that declares each."""

    datasets: Mapping[str, DatasetSpec]
    models: Mapping[str, ModelSpec]
    files: Mapping[str, str]

    def provide(self, sources: Mapping[str, str]) -> Catalogue:
        """Let models read a provided dataset in place of the one it stands in for."""
        swap: dict[str, str] = {}
        for name in sources:
            dataset = self.datasets.get(name)
            if dataset is None:
                raise SpecError([Fault("--source", name, f"no dataset of this name; declared: {_choices(self.datasets)}")])
            if dataset.source.kind != "provided":
                raise SpecError(
                    [Fault("--source", name, f"this dataset has a source of its own ({dataset.source.kind}); {_provided(self)}")]
                )
            if dataset.stands_in_for:
                swap[dataset.stands_in_for] = name
        models = {name: model.model_copy(update={"dataset": swap.get(model.dataset, model.dataset)}) for name, model in self.models.items()}
        return Catalogue(self.datasets, models, self.files)

    def dataset_of(self, model: str) -> DatasetSpec:
        """Return the dataset that a model reads."""
        return self.datasets[self.models[model].dataset]


def _provided(catalogue: Catalogue) -> str:
    names = [name for name, dataset in catalogue.datasets.items() if dataset.source.kind == "provided"]
    return f"--source fits: {_choices(names)}"


class _Loader(yaml.SafeLoader):
    """Safe YAML without aliases (a few lines of them expand to gigabytes) and without repeated keys (the first would be lost)."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark
            raise yaml.YAMLError(f"line {mark.line + 1}: aliases (*name) are refused in declarations; write the value out")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if key_node.value in seen:
                raise yaml.YAMLError(f"line {key_node.start_mark.line + 1}: {key_node.value!r} is given twice")
            seen.add(key_node.value)
        return super().construct_mapping(node, deep=deep)


def load_catalogue(root: Path) -> Catalogue:
    """Read every `defs.yaml` below `root`; raise SpecError with every fault of every file."""
    faults: list[Fault] = []
    found: list[tuple[str, DatasetSpec | ModelSpec]] = []
    if not root.is_dir():
        raise SpecError([Fault(str(root), "", "no such folder of declarations")])
    for path in sorted(root.rglob("defs.yaml")):
        name = str(path.relative_to(root.parent))
        spec = _read_file(path, name, faults.append)
        if spec is not None:
            found.append((name, spec))
    catalogue = _collect(found, faults.append)
    for file, spec in found:
        check = (
            _check_dataset(_extend(spec, catalogue.datasets), catalogue) if isinstance(spec, DatasetSpec) else _check_model(spec, catalogue)
        )
        faults.extend(Fault(file, fault.field, fault.message) for fault in check)
    if faults:
        raise SpecError(sorted(faults, key=lambda fault: (fault.file, fault.field)))
    return catalogue


def _read_file(path: Path, name: str, report: Callable[[Fault], None]) -> DatasetSpec | ModelSpec | None:
    size = path.stat().st_size
    if size > MAX_FILE_BYTES:
        report(Fault(name, "", f"the file has {size:,} bytes; a declaration has at most {MAX_FILE_BYTES:,}"))
        return None
    try:
        document = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)  # noqa: S506 - a SafeLoader
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        report(Fault(name, "", f"not readable as YAML: {' '.join(str(error).split())}"))
        return None
    if not isinstance(document, dict):
        what = "the file is empty" if document is None else f"found {type(document).__name__} at the top"
        report(Fault(name, "", f"{what}; a declaration is a mapping with `type` and `attributes`"))
        return None
    for key in sorted(set(document) - {"type", "attributes"}, key=str):
        report(Fault(name, str(key), _unknown(str(key), ["type", "attributes"])))
    spec = _SPECS.get(str(document.get("type")))
    if spec is None:
        report(Fault(name, "type", f"found {document.get('type')!r}; valid: {_choices(_SPECS)}"))
        return None
    attributes = document.get("attributes")
    for fault in _templates_in(name, attributes, ()):
        report(fault)
    try:
        return spec.model_validate(attributes)  # type: ignore[return-value]
    except ValidationError as error:
        for fault in _faults_of(name, spec, error):
            report(fault)
        return _salvage(spec, attributes, error)  # type: ignore[return-value]


def _templates_in(file: str, value: Any, loc: tuple[str, ...]) -> Iterator[Fault]:
    """Dagster's loader would leave `{{ env.X }}` unexpanded: a declaration must not look as if it hid an environment."""
    if isinstance(value, str) and "{{" in value:
        yield Fault(
            file, ".".join(loc), f"template expressions are not expanded in declarations; write the value itself, found {value!r:.80}"
        )
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from _templates_in(file, item, (*loc, str(key)))


def _salvage(spec: type[BaseModel], attributes: Any, error: ValidationError) -> BaseModel | None:
    """Leave out the fields at fault, so that rules across files can still be held against the rest; None where that is not enough."""
    rest = copy.deepcopy(attributes)
    for item in error.errors(include_url=False):
        holder, loc = rest, list(item["loc"])
        for part in loc[:-1]:
            inner = holder.get(part) if isinstance(holder, dict) else None
            holder = holder if inner is None else inner  # a union's tag stands in loc, but not in the file
        if loc and isinstance(holder, dict):
            holder.pop(loc[-1], None)
    try:
        return spec.model_validate(rest)
    except ValidationError:
        return None


def _faults_of(file: str, spec: type[BaseModel], error: ValidationError) -> Iterator[Fault]:
    for item in error.errors(include_url=False):
        if isinstance(item["input"], str) and "{{" in item["input"]:
            continue  # reported as a template already
        loc = [str(part) for part in item["loc"]]
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] == "extra_forbidden":
            message = _unknown(loc[-1], _fields_at(spec, loc[:-1]))
        elif item["type"] == "union_tag_not_found":
            message = f"needs {item['ctx']['discriminator']} to say which form it has"
        elif item["type"] == "missing":
            message = "is required and was not given"
        elif item["type"] != "value_error":
            message = f"{message}, found {item['input']!r:.80}"
        yield Fault(file, ".".join(loc), message)


def _fields_at(spec: type[BaseModel], loc: list[str]) -> list[str]:
    """Fields valid where `loc` points; steps through dict keys and union tags that are no fields themselves."""
    models = [spec]
    for part in loc:
        inner = [model for m in models if part in m.model_fields for model in _models_in(m.model_fields[part].annotation)]
        models = inner or [m for m in models if not _is_tagged(m) or _tag(m) == part] or models
    return sorted({field for model in models for field in model.model_fields})


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for arg in get_args(annotation) for model in _models_in(arg)]


def _is_tagged(model: type[BaseModel]) -> bool:
    return "kind" in model.model_fields or "method" in model.model_fields


def _tag(model: type[BaseModel]) -> str | None:
    field = model.model_fields.get("kind") or model.model_fields["method"]
    tags = get_args(field.annotation)
    return tags[0] if tags else None


def _unknown(key: str, valid: list[str]) -> str:
    near = difflib.get_close_matches(key, valid, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"unknown key {key!r}; {hint}valid: {_choices(valid)}"


def _choices(names: Mapping[str, Any] | list[str] | tuple[str, ...]) -> str:
    return ", ".join(sorted(names)) or "none is declared"


def _collect(found: list[tuple[str, DatasetSpec | ModelSpec]], report: Callable[[Fault], None]) -> Catalogue:
    datasets: dict[str, DatasetSpec] = {}
    models: dict[str, ModelSpec] = {}
    files: dict[str, str] = {}
    for file, spec in found:
        family: dict[str, Any] = datasets if isinstance(spec, DatasetSpec) else models
        key = f"{'dataset' if isinstance(spec, DatasetSpec) else 'model'}/{spec.name}"
        if spec.name in family:
            report(Fault(file, "attributes.name", f"{spec.name!r} is declared in {files[key]} already; names are unique"))
            continue
        family[spec.name] = spec
        files[key] = file
    return Catalogue({name: _extend(spec, datasets) for name, spec in datasets.items()}, models, files)


def _extend(spec: DatasetSpec, datasets: Mapping[str, DatasetSpec]) -> DatasetSpec:
    base = datasets.get(spec.extends or "")
    if base is None:
        return spec
    taken = {field: getattr(base, field) for field in ("label", "history", "contract") if field not in spec.model_fields_set}
    return spec.model_copy(update={**taken, "columns": {**base.columns, **spec.columns}, "views": {**base.views, **spec.views}})


def _check_dataset(dataset: DatasetSpec, catalogue: Catalogue) -> Iterator[Fault]:
    for field in ("extends", "stands_in_for"):
        other = getattr(dataset, field)
        if other is not None and other not in catalogue.datasets:
            yield Fault("", field, f"no dataset {other!r}; declared: {_choices(catalogue.datasets)}")
    if dataset.extends and (catalogue.datasets.get(dataset.extends) or dataset).extends:
        yield Fault("", "extends", f"{dataset.extends!r} extends another dataset itself; one level is allowed")
    if dataset.columns:
        yield from _check_columns(dataset)
    else:
        yield Fault("", "columns", "no column is declared; list every column to be ingested")


def _check_columns(dataset: DatasetSpec) -> Iterator[Fault]:
    columns = dataset.columns

    def known(field: str, column: str) -> Iterator[Fault]:
        if column not in columns:
            yield Fault("", field, f"no column {column!r} in dataset {dataset.name!r}; declared: {_choices(columns)}")

    yield from known("event_time", dataset.event_time)
    yield from known("key", dataset.key)
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


def request_columns(model: ModelSpec, dataset: DatasetSpec) -> frozenset[str]:
    """Columns that a request may carry: the features of the row itself, entities to look others up, key and event time."""
    views = [dataset.views[name] for name in model.features.views]
    own = {column for view in views if isinstance(view, ColumnsView) for column in view.columns}
    return frozenset({dataset.key, dataset.event_time} | {view.entity for view in views} | (own - set(model.features.without)))


def _check_model(model: ModelSpec, catalogue: Catalogue) -> Iterator[Fault]:
    dataset = catalogue.datasets.get(model.dataset)
    if dataset is None:
        yield Fault("", "dataset", f"no dataset {model.dataset!r}; declared: {_choices(catalogue.datasets)}")
        return
    yield from _check_features(model, dataset)
    yield from _check_promises(model, dataset)


def _check_features(model: ModelSpec, dataset: DatasetSpec) -> Iterator[Fault]:
    unknown = [view for view in model.features.views if view not in dataset.views]
    for view in unknown:
        yield Fault("", "features.views", f"no view {view!r} in dataset {dataset.name!r}; declared: {_choices(dataset.views)}")
    names = [feature for view in model.features.views if view in dataset.views for feature in view_features(dataset, view)]
    for feature in model.features.without:
        if not unknown and feature not in names:
            yield Fault(
                "", "features.without", f"no feature {feature!r} in views {', '.join(model.features.views)}; they give: {_choices(names)}"
            )
    for feature in sorted({feature for feature in names if names.count(feature) > 1}):
        yield Fault("", "features.views", f"{feature!r} comes from more than one view; name it in only one")
    kinds = {dataset.columns[name].type for name in names if name in dataset.columns}
    wants_image = model.training.architecture == "vision_transformer"
    if names and wants_image != ("image" in kinds):
        found = "an image column" if "image" in kinds else "no image column"
        yield Fault("", "training.architecture", f"{model.training.architecture!r} does not fit: the views give {found}")
    if dataset.label is None or model.target.column != dataset.label.column:
        label = dataset.label.column if dataset.label else "none"
        yield Fault("", "target.column", f"{model.target.column!r} is not the label of dataset {dataset.name!r} (its label: {label})")


def _check_promises(model: ModelSpec, dataset: DatasetSpec) -> Iterator[Fault]:
    valid = METRICS[model.target.kind]
    for gate in model.gates:
        if gate.removesuffix("_vs_champion") not in valid:
            names = _choices([*valid, *(f"{metric}_vs_champion" for metric in valid)])
            yield Fault("", f"gates.{gate}", f"no such metric of a {model.target.kind} model; valid: {names}")
    if model.split.calibration + model.split.holdout >= 1:
        yield Fault("", "split", "calibration and holdout together leave nothing to train on")
    if model.training.width % model.training.heads and model.training.architecture != "tabular_mlp":
        yield Fault("", "training.width", f"width {model.training.width} is not a multiple of heads {model.training.heads}")
    if model.governance.residency != dataset.residency:
        message = f"{model.governance.residency} is not where dataset {dataset.name!r} may be ({dataset.residency})"
        yield Fault("", "governance.residency", message)


def declaration_schema(type_name: str) -> dict[str, Any]:
    """Return the JSON schema of a whole defs.yaml of this type, for editors."""
    attributes = _SPECS[type_name].model_json_schema()
    definitions = attributes.pop("$defs", {})
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "required": ["type", "attributes"],
        "additionalProperties": False,
        "properties": {"type": {"const": type_name}, "attributes": attributes},
        "$defs": definitions,
    }
