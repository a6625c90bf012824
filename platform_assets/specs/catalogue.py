"""Every declaration of a tree, read together. Rules that span files live in rules.py and compute_rules.py, single-field rules in the specs.

This pass comes before Dagster's own loader, which stops at the first bad file: all faults of all files are reported at once.
"""

from __future__ import annotations

import copy
import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, get_args

from pydantic import BaseModel, ValidationError

from platform_assets.errors import Fault, SpecError
from platform_assets.specs.compute import ComputeProfile, ComputeSpec
from platform_assets.specs.compute_rules import check_binding, check_compute, local_compute, profile_name
from platform_assets.specs.dataset import ColumnsView, DatasetSpec
from platform_assets.specs.model import ModelSpec
from platform_assets.specs.rules import check_dataset, check_model
from platform_assets.specs.strict_yaml import read_yaml
from platform_assets.specs.words import listed

DATASET_TYPE = "platform_assets.components.dataset.Dataset"
MODEL_TYPE = "platform_assets.components.model_pipeline.ModelPipeline"
COMPUTE_TYPE = "platform_assets.components.compute.Compute"
SPECS: dict[str, type[BaseModel]] = {COMPUTE_TYPE: ComputeSpec, DATASET_TYPE: DatasetSpec, MODEL_TYPE: ModelSpec}


@dataclass(frozen=True)
class Catalogue:
    """All datasets (with `extends` resolved) and models by name, the file that declares each, and the compute catalogue."""

    datasets: Mapping[str, DatasetSpec]
    models: Mapping[str, ModelSpec]
    files: Mapping[str, str]
    compute: ComputeSpec

    def provide(self, sources: Mapping[str, str]) -> Catalogue:
        """Let models read a provided dataset in place of the one it stands in for."""
        swap: dict[str, str] = {}
        for name in sources:
            dataset = self.datasets.get(name)
            if dataset is None:
                raise SpecError([Fault("--source", name, f"no dataset of this name; declared: {listed(self.datasets)}")])
            if dataset.source.kind != "provided":
                raise SpecError(
                    [Fault("--source", name, f"this dataset has a source of its own ({dataset.source.kind}); {_provided(self)}")]
                )
            if dataset.stands_in_for:
                swap[dataset.stands_in_for] = name
        models = {name: model.model_copy(update={"dataset": swap.get(model.dataset, model.dataset)}) for name, model in self.models.items()}
        return replace(self, models=models)

    def of_tenant(self, tenant: str) -> Catalogue:
        """Return what is one tenant's: its models, the datasets that they read or may read instead, its budget."""
        models = {name: model for name, model in self.models.items() if model.tenant == tenant}
        read = {model.dataset for model in models.values()}
        datasets = {name: dataset for name, dataset in self.datasets.items() if name in read or dataset.stands_in_for in read}
        mine = {name: spec for name, spec in self.compute.tenants.items() if name == tenant}
        return replace(self, models=models, datasets=datasets, compute=self.compute.model_copy(update={"tenants": mine}))

    def dataset_of(self, model: str) -> DatasetSpec:
        """Return the dataset that a model reads."""
        return self.datasets[self.models[model].dataset]

    def profile_of(self, model: str, state: str) -> tuple[str, ComputeProfile]:
        """Return the profile that a state of a model runs on, and its name."""
        name = profile_name(self.models[model], state, compute=self.compute)
        return name, self.compute.profiles[name]

    def profile_of_asset(self, key: Sequence[str]) -> tuple[str, ComputeProfile]:
        """Return the profile that an asset runs on, and its name; whatever is no state of a declared model runs on the default."""
        if key[0] == "model" and key[1] in self.models:
            return self.profile_of(key[1], key[-1])
        return self.compute.default, self.compute.profiles[self.compute.default]


def _provided(catalogue: Catalogue) -> str:
    names = [name for name, dataset in catalogue.datasets.items() if dataset.source.kind == "provided"]
    return f"--source fits: {listed(names)}"


def load_catalogue(root: Path) -> Catalogue:
    """Read every `defs.yaml` below `root`; raise SpecError with every fault of every file."""
    catalogue, faults = read_catalogue(root)
    if faults:
        raise SpecError(faults)
    return catalogue


def read_catalogue(root: Path) -> tuple[Catalogue, list[Fault]]:
    """Read what can be read below `root`, and every fault of every file; with any, what is at fault is lacking, even all profiles."""
    faults: list[Fault] = []
    found: list[Declared] = []
    if not root.is_dir():
        raise SpecError([Fault(str(root), "", "no such folder of declarations")])
    for path in sorted(root.rglob("defs.yaml")):
        name = str(path.relative_to(root.parent))
        found.append(_read_file(path, name, faults.append))
    catalogue = _collect(found, faults.append)
    for one in found:
        faults.extend(Fault(one.file, fault.field, fault.message) for fault in _check(one.spec, catalogue))
    return catalogue, sorted(faults, key=lambda fault: (fault.file, fault.field))


class Declared(NamedTuple):
    """A file of declarations: where it lies, what it says it is, and what could be read of it."""

    file: str
    type_name: str | None
    spec: BaseModel | None


def _check(spec: BaseModel | None, catalogue: Catalogue) -> Iterator[Fault]:
    if isinstance(spec, DatasetSpec):
        yield from check_dataset(_extend(spec, catalogue.datasets), catalogue.datasets)
    elif isinstance(spec, ModelSpec):
        yield from check_model(spec, catalogue.datasets)
        yield from check_binding(spec, catalogue.compute)
    elif isinstance(spec, ComputeSpec):
        yield from check_compute(spec)


def _read_file(path: Path, name: str, report: Callable[[Fault], None]) -> Declared:
    document = _read_document(path, name, report)
    if document is None:
        return Declared(name, None, None)
    type_name = str(document.get("type"))
    spec = SPECS.get(type_name)
    if spec is None:
        report(Fault(name, "type", f"found {document.get('type')!r}; valid: {listed(SPECS)}"))
        return Declared(name, None, None)
    attributes = document.get("attributes")
    for fault in _templates_in(name, attributes, ()):
        report(fault)
    try:
        return Declared(name, type_name, spec.model_validate(attributes))
    except ValidationError as error:
        for fault in _faults_of(name, spec, error):
            report(fault)
        return Declared(name, type_name, _salvage(spec, attributes, error))


def _read_document(path: Path, name: str, report: Callable[[Fault], None]) -> dict[Any, Any] | None:
    try:
        document = read_yaml(path)
    except ValueError as error:
        report(Fault(name, "", str(error)))
        return None
    if not isinstance(document, dict):
        what = "the file is empty" if document is None else f"found {type(document).__name__} at the top"
        report(Fault(name, "", f"{what}; a declaration is a mapping with `type` and `attributes`"))
        return None
    for key in sorted(set(document) - {"type", "attributes"}, key=str):
        report(Fault(name, str(key), _unknown(str(key), ["type", "attributes"])))
    return document


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
    return f"unknown key {key!r}; {hint}valid: {listed(valid)}"


def _collect(found: list[Declared], report: Callable[[Fault], None]) -> Catalogue:
    datasets: dict[str, DatasetSpec] = {}
    models: dict[str, ModelSpec] = {}
    files: dict[str, str] = {}
    # What is in a file that cannot be read, or whether it was the compute catalogue, is not known: then no profile is.
    unread = any(one.spec is None and one.type_name in (COMPUTE_TYPE, None) for one in found)
    compute: ComputeSpec | None = ComputeSpec.model_construct(default="", profiles={}) if unread else None
    for file, _, spec in found:
        if isinstance(spec, ComputeSpec):
            if "compute" in files:
                report(Fault(file, "type", f"compute is declared in {files['compute']} already; one file declares all profiles"))
                continue
            compute, files["compute"] = spec, file
        elif isinstance(spec, DatasetSpec | ModelSpec):
            family: dict[str, Any] = datasets if isinstance(spec, DatasetSpec) else models
            key = f"{'dataset' if isinstance(spec, DatasetSpec) else 'model'}/{spec.name}"
            if spec.name in family:
                report(Fault(file, "attributes.name", f"{spec.name!r} is declared in {files[key]} already; names are unique"))
                continue
            family[spec.name] = spec
            files[key] = file
    extended = {name: _extend(spec, datasets) for name, spec in datasets.items()}
    return Catalogue(extended, models, files, compute or local_compute())


def _extend(spec: DatasetSpec, datasets: Mapping[str, DatasetSpec]) -> DatasetSpec:
    base = datasets.get(spec.extends or "")
    if base is None:
        return spec
    taken = {field: getattr(base, field) for field in ("label", "subject", "history", "contract") if field not in spec.model_fields_set}
    return spec.model_copy(update={**taken, "columns": {**base.columns, **spec.columns}, "views": {**base.views, **spec.views}})


def request_columns(model: ModelSpec, dataset: DatasetSpec) -> frozenset[str]:
    """Columns that a request may carry: the features of the row itself, entities to look others up, key and event time."""
    views = [dataset.views[name] for name in model.features.views]
    own = {column for view in views if isinstance(view, ColumnsView) for column in view.columns}
    return frozenset({dataset.key, dataset.event_time} | {view.entity for view in views} | (own - set(model.features.without)))


def declaration_schema(type_name: str) -> dict[str, Any]:
    """Return the JSON schema of a whole defs.yaml of this type, for editors."""
    attributes = SPECS[type_name].model_json_schema()
    definitions = attributes.pop("$defs", {})
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "required": ["type", "attributes"],
        "additionalProperties": False,
        "properties": {"type": {"const": type_name}, "attributes": attributes},
        "$defs": definitions,
    }
