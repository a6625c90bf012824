"""What all specs share: strictness, names, spans of time. No single declaration's fields belong here."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, PlainSerializer, StringConstraints, WithJsonSchema

from platform_assets.specs.places import check_jurisdiction

_SPAN = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*(s|m|h|d|w)\s*$")
_CRON_LIMITS = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))  # minute, hour, day, month, weekday
_UNIT_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def parse_span(value: object) -> timedelta:
    """Read `90s`, `15m`, `6h`, `14d` or `2w`; anything else is a ValueError that says so."""
    if isinstance(value, timedelta):
        return value
    match = _SPAN.match(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f"{value!r} is not a span of time; write for example 90s, 15m, 6h, 14d or 2w")
    return timedelta(seconds=float(match[1]) * _UNIT_SECONDS[match[2]])


def format_span(value: timedelta) -> str:
    """Write a span in its largest whole unit, the inverse of `parse_span`."""
    seconds = value.total_seconds()
    for unit in ("w", "d", "h", "m"):
        if seconds and seconds % _UNIT_SECONDS[unit] == 0:
            return f"{int(seconds // _UNIT_SECONDS[unit])}{unit}"
    return f"{int(seconds)}s" if seconds.is_integer() else f"{seconds}s"


def _check_cron(text: str) -> str:
    fields = text.split()
    whole = len(fields) == len(_CRON_LIMITS)
    if not whole or not all(_is_cron_field(field, *limits) for field, limits in zip(fields, _CRON_LIMITS, strict=True)):
        raise ValueError(f"{text!r} is not a cron string of five fields; write for example '0 2 * * 0' for Sundays at 2:00")
    return text


def _is_cron_field(field: str, low: int, high: int) -> bool:
    return all(
        re.fullmatch(r"(\*|\d+(-\d+)?)(/[1-9]\d*)?", part)
        and all(low <= int(number) <= high for number in re.findall(r"\d+", part.split("/")[0]))
        for part in field.split(",")
    )


Span = Annotated[timedelta, BeforeValidator(parse_span, json_schema_input_type=str), PlainSerializer(format_span, return_type=str)]
Cron = Annotated[str, AfterValidator(_check_cron)]
Jurisdiction = Annotated[str, AfterValidator(check_jurisdiction), WithJsonSchema({"type": "string", "pattern": "^[A-Z]{2}$"})]
Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,62}$")]
ColumnName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,62}$")]


class Spec(BaseModel):
    """Base of every shape: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")
