"""Fields of a spec in words for people: type, default, choices. Who prints them, the scaffold and the reference, is elsewhere."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import to_jsonable_python

_PLAIN = {str: "text", Path: "file", int: "whole number", float: "number", bool: "true or false", timedelta: "span of time", date: "date"}
_BOUNDS = {"gt": "above", "ge": "at least", "lt": "below", "le": "at most"}


def default_of(spec: type[BaseModel], field: str) -> str | None:
    """Return the default as one line of YAML; None where the field is required."""
    info = spec.model_fields[field]
    if info.is_required():
        return None
    plain = to_jsonable_python(info.get_default(call_default_factory=True, validated_data={}))
    return yaml.safe_dump(plain, default_flow_style=True, width=10_000).removesuffix("...\n").strip()


def type_of(info: FieldInfo, *, link: Callable[[type[BaseModel]], str]) -> str:
    """Say which values a field takes; `link` names a nested spec."""
    return _words(info.annotation, info.metadata, link)


def choices_of(annotation: Any) -> tuple[str, ...]:
    """Return the closed set of words a field takes, also inside a list or beside None; empty where the set is open."""
    if get_origin(annotation) is Literal:
        return get_args(annotation)
    return next((found for arg in get_args(annotation) if (found := choices_of(arg))), ())


def listed(names: Iterable[str]) -> str:
    """Return names as a sentence lists them."""
    return ", ".join(sorted(names)) or "none is declared"


def nested_specs(annotation: Any) -> list[type[BaseModel]]:
    """Return the specs that a field's value is made of, in the order declared."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [spec for arg in get_args(annotation) for spec in nested_specs(arg)]


def reachable_specs(spec: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """Yield a spec and every one below it, once each."""
    seen: set[type[BaseModel]] = set()
    waiting = [spec]
    while waiting:
        one = waiting.pop(0)
        if one not in seen:
            seen.add(one)
            yield one
            waiting += [inner for info in one.model_fields.values() for inner in nested_specs(info.annotation)]


def _words(annotation: Any, metadata: Sequence[Any], link: Callable[[type[BaseModel]], str]) -> str:
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _words(args[0], [*metadata, *args[1:]], link)
    if origin in (Union, types.UnionType):
        return " or ".join(_words(arg, metadata, link) for arg in args if arg is not type(None))
    if origin is Literal:
        return ", ".join(f"`{arg}`" for arg in args)
    if origin in (tuple, dict):
        return _words_of_many(origin, args, link)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return link(annotation)
    bounds = ", ".join(sorted(_bounds(metadata)))  # above, at least, at most, below
    return f"{_PLAIN[annotation]} {bounds}".strip()


def _words_of_many(origin: type, args: tuple[Any, ...], link: Callable[[type[BaseModel]], str]) -> str:
    if origin is dict:
        return f"by name: {_words(args[1], (), link)}"
    inner = [_words(arg, (), link) for arg in args if arg is not Ellipsis]
    return f"list of {inner[0]}" if Ellipsis in args else f"[{', '.join(inner)}]"


def _bounds(metadata: Sequence[Any]) -> Iterator[str]:
    for item in metadata:
        if isinstance(item, FieldInfo):
            yield from _bounds(item.metadata)
        for name, word in _BOUNDS.items():
            if (value := getattr(item, name, None)) is not None:
                yield f"{word} {value:,}"
