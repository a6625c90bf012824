"""Records, nested dataclasses, as canonical JSON and back. Standard library only, as the trainer and the inference server read them too."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, fields, is_dataclass
from functools import cache
from types import UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

T = TypeVar("T")


def to_json(record: Any) -> str:
    """Write a record as canonical JSON: sorted keys, no spaces, NaN refused."""
    value = asdict(record) if is_dataclass(record) and not isinstance(record, type) else record
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def read_record(cls: type[T], text: str | bytes) -> T:
    """Read a record written by `to_json`; unknown or missing fields raise ValueError."""
    return _build(cls, json.loads(text))


def _build(cls: Any, value: Any) -> Any:
    return _reader(cls)(value)


def _as_it_is(value: Any) -> Any:
    return value


@cache
def _reader(cls: Any) -> Callable[[Any], Any]:
    """What builds a value of this type from JSON. Made once a type: a drift reference has 20,000 values, and a type is slow to ask."""
    origin, inner = get_origin(cls), get_args(cls)
    if origin is tuple:
        return _sequence_reader(_reader(inner[0]))
    if origin is dict:
        read = _reader(inner[1])
        return dict if read is _as_it_is else lambda value: {key: read(item) for key, item in value.items()}
    if origin is UnionType:
        read = _reader(next(arg for arg in inner if arg is not type(None)))
        return _as_it_is if read is _as_it_is else lambda value: None if value is None else read(value)
    return _record_reader(cls) if isinstance(cls, type) and is_dataclass(cls) else _as_it_is


def _sequence_reader(read: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return tuple if read is _as_it_is else lambda value: tuple(map(read, value))


def _record_reader(cls: type[Any]) -> Callable[[Any], Any]:
    hints = get_type_hints(cls)
    readers = {one.name: _reader(hints[one.name]) for one in fields(cls)}

    def read(value: Any) -> Any:
        unknown = set(value) - set(readers)
        if unknown:
            raise ValueError(f"{cls.__name__}: unknown fields {sorted(unknown)}")
        try:
            return cls(**{name: readers[name](item) for name, item in value.items()})
        except TypeError as error:
            raise ValueError(f"{cls.__name__}: {error}") from error

    return read


def from_mapping(cls: type[T], value: Mapping[str, Any]) -> T:
    """Read a record from already parsed JSON."""
    return _build(cls, dict(value))
