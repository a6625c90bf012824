"""What `dg scaffold defs` writes: a declaration that loads, with every field there is, its default and its meaning."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, get_origin

from dagster.components.scaffold.scaffold import Scaffolder, ScaffoldRequest
from pydantic import BaseModel

from platform_assets.specs.catalogue import COMPUTE_TYPE, DATASET_TYPE, MODEL_TYPE
from platform_assets.specs.compute import ComputeSpec
from platform_assets.specs.dataset import DatasetSpec
from platform_assets.specs.model import ModelSpec
from platform_assets.specs.words import choices_of, default_of, nested_specs
from resources.home import write_atomically

_HEAD = (
    "# Lines without a comment sign are needed; their values are examples that load as they are: replace them.",
    "# Lines that begin with `# ` are optional and show the default: take the sign away from a line and its parents to change it.",
    "# Lines that begin with `## ` explain. `falaj check` names every fault; `falaj schema` writes the schema for editors.",
)
_EXAMPLES: Mapping[str, Any] = {
    "owner": "team:mine",
    "purpose": "Say here why this data is processed.",
    "dataset": "hotel_bookings_simulated",
    "features": {"views": "[booking]"},
    "target": {"column": "is_canceled", "kind": "binary"},
    "training": {"architecture": "tabular_transformer"},
    "default": "cpu-small",
    "profiles": "{cpu-small: {cpu: 2, memory: 4Gi, price_aed_per_hour: 0.4}}",
    "source": "{kind: file, path: /data/mine.parquet}",
    "key": "row_id",
    "event_time": "happened_at",
    "columns": "{row_id: {type: string}, happened_at: {type: timestamp}, amount: {type: number, minimum: 0}}",
    "views": "{row: {kind: columns, entity: row_id, columns: [amount]}}",
}


class _DeclarationScaffolder(Scaffolder[Any]):
    type_name: str
    spec: type[BaseModel]

    def scaffold(self, request: ScaffoldRequest[Any]) -> None:
        """Write defs.yaml into the asked folder."""
        text = render_declaration(self.type_name, self.spec, name=request.target_path.name)
        write_atomically(request.target_path / "defs.yaml", text.encode())


class DatasetScaffolder(_DeclarationScaffolder):
    """Scaffolds a dataset."""

    type_name = DATASET_TYPE
    spec = DatasetSpec


class ModelScaffolder(_DeclarationScaffolder):
    """Scaffolds a model."""

    type_name = MODEL_TYPE
    spec = ModelSpec


class ComputeScaffolder(_DeclarationScaffolder):
    """Scaffolds the compute catalogue."""

    type_name = COMPUTE_TYPE
    spec = ComputeSpec


def render_declaration(type_name: str, spec: type[BaseModel], *, name: str) -> str:
    """Write a declaration. With every `# ` of a field taken away it still loads, and means the same."""
    fields = _indented(_render_fields(spec, examples={**_EXAMPLES, "name": name}, hide=True))
    return "\n".join([*_HEAD, f"type: {type_name}", "attributes:", *fields]) + "\n"


def _render_fields(spec: type[BaseModel], *, examples: Mapping[str, Any], hide: bool) -> Iterator[str]:
    for field, info in spec.model_fields.items():
        example, hidden = examples.get(field), hide and not info.is_required() and field not in examples
        note = _note(info.annotation, info.description)
        if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
            inner = _render_fields(info.annotation, examples=example or {}, hide=not hidden and hide)
            lines = [f"{field}:{note}", *_indented(inner)]
            yield from (f"# {line}" if hidden else line for line in lines)
        else:
            line = f"{field}: {example or default_of(spec, field)}{note}"
            yield f"# {line}" if hidden else line
            yield from (f"## {line}" for line in _indented(_explain(nested_specs(info.annotation))))


def _explain(specs: list[type[BaseModel]]) -> Iterator[str]:
    """Say what may stand where a field takes one of several shapes, or a map of them."""
    for spec in specs:
        yield f"{(spec.__doc__ or '').strip().splitlines()[0]}"
        for field, info in spec.model_fields.items():
            default = default_of(spec, field)
            choices = choices_of(info.annotation)
            value = "(required)" if default is None and len(choices) != 1 else default or choices[0]
            yield f"  {field}: {value}{_note(info.annotation, info.description)}"
            yield from _indented(_indented(_explain(nested_specs(info.annotation))))


def _note(annotation: Any, description: str | None) -> str:
    choices = choices_of(annotation)
    among = f"{'Any' if get_origin(annotation) is tuple else 'One'} of: {', '.join(choices)}." if len(choices) > 1 else ""
    words = " ".join(part for part in (description, among) if part)
    return f"  # {words}" if words else ""


def _indented(lines: Iterator[str]) -> Iterator[str]:
    return (f"  {line}" for line in lines)
