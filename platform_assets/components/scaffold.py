"""What `dg scaffold defs` writes: a declaration that loads, with every field there is, explained. No defaults are repeated here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, get_args

from dagster.components.scaffold.scaffold import Scaffolder, ScaffoldRequest
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from platform_assets.specs.catalogue import DATASET_TYPE, MODEL_TYPE
from platform_assets.specs.dataset import DatasetSpec
from platform_assets.specs.model import ModelSpec

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

_EXAMPLES: dict[str, str] = {
    "owner": "team:mine",
    "purpose": "Say here why this data is processed.",
    "dataset": "hotel_bookings_simulated",
    "features": "{views: [booking]}",
    "target": "{column: is_canceled, kind: binary}",
    "training": "{architecture: tabular_transformer}",
    "source": "{kind: file, path: /data/mine.parquet}",
    "key": "row_id",
    "event_time": "happened_at",
    "columns": "{row_id: {type: string}, happened_at: {type: timestamp}}",
}


class _DeclarationScaffolder(Scaffolder[Any]):
    type_name: str
    spec: type[BaseModel]

    def scaffold(self, request: ScaffoldRequest[Any]) -> None:
        """Write defs.yaml into the asked folder."""
        request.target_path.mkdir(parents=True, exist_ok=True)
        text = render_declaration(self.type_name, self.spec, name=request.target_path.name)
        (request.target_path / "defs.yaml").write_text(text, encoding="utf-8")


class DatasetScaffolder(_DeclarationScaffolder):
    """Scaffolds a dataset."""

    type_name = DATASET_TYPE
    spec = DatasetSpec


class ModelScaffolder(_DeclarationScaffolder):
    """Scaffolds a model."""

    type_name = MODEL_TYPE
    spec = ModelSpec


def render_declaration(type_name: str, spec: type[BaseModel], *, name: str) -> str:
    """Write a declaration: required fields with an example, all others as comments with their default and meaning."""
    lines = [f"type: {type_name}", "attributes:", f"  name: {name}"]
    for field, info in spec.model_fields.items():
        if field != "name":
            lines += _render_field(field, info, indent=2, example=_EXAMPLES.get(field))
    return "\n".join(lines) + "\n"


def _render_field(field: str, info: FieldInfo, *, indent: int, example: str | None) -> list[str]:
    pad = " " * indent
    required = info.default is PydanticUndefined and info.default_factory is None
    note = f"  # {info.description}" if info.description else ""
    nested = _nested(info.annotation)
    if required or (example is not None and field == "columns"):
        lines = [f"{pad}{field}: {example or '...'}{note}"]
        return lines + _render_nested(nested, indent=indent, title=f"{field} takes")
    if nested:
        return [f"{pad}# {field}:{note}", *_render_nested(nested, indent=indent, title=None)]
    return [f"{pad}# {field}: {_default_text(info)}{note}"]


def _render_nested(models: list[type[BaseModel]], *, indent: int, title: str | None) -> list[str]:
    pad = " " * indent
    lines: list[str] = []
    for model in models:
        if title:
            lines.append(f"{pad}# {title} ({(model.__doc__ or '').strip().splitlines()[0]})")
        for field, info in model.model_fields.items():
            note = f"  # {info.description}" if info.description else ""
            choice = f"  # one of: {', '.join(map(str, choices))}" if (choices := _choices(info.annotation)) else ""
            lines.append(f"{pad}#   {field}: {_default_text(info)}{note or choice}")
    return lines


def _default_text(info: FieldInfo) -> str:
    if info.default is PydanticUndefined:
        return "{}" if info.default_factory is not None else "(required)"
    value = info.default
    if isinstance(value, BaseModel):
        return value.model_dump_json()
    if isinstance(value, tuple):
        return "[" + ", ".join(map(str, value)) + "]"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _choices(annotation: Any) -> tuple[Any, ...]:
    values = get_args(annotation)
    return values if values and all(isinstance(value, str) for value in values) else ()


def _nested(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for arg in get_args(annotation) for model in _nested(arg)]
