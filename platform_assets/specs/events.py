"""Events that come in and go out: CloudEvents 1.0 in JSON, each type with its own data (https://github.com/cloudevents/spec)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from platform_assets.errors import EventError

MOST_BYTES = 64 * 1024  # what CloudEvents asks every intermediary to pass on
LATEST = timedelta(days=7)  # an event that is older asks for what nobody waits for any more
_Name = Annotated[str, Field(min_length=1, max_length=200)]
_Sentence = Annotated[str, Field(max_length=2000)]


class _Data(BaseModel):
    model_config = ConfigDict(extra="forbid")


class DataLanded(_Data):
    """New rows of a dataset can be read."""

    dataset: _Name = Field(description="Name of a declared dataset.")


class LabelsLanded(_Data):
    """Labels of predictions can be read, as rows of the model's dataset."""

    model: _Name = Field(description="Name of a declared model.")


class RetrainingAsked(_Data):
    """Somebody or something outside wants a model retrained."""

    model: _Name = Field(description="Name of a declared model.")
    why: _Sentence = Field("", description="Reason, for the run's tags and the audit log.")


class ApprovalGiven(_Data):
    """A person releases a run that admission holds."""

    run: _Name = Field(description="Run id, or the beginning of one.")
    by: _Name = Field(description="Who approves.")


class ErasureAsked(_Data):
    """A person wants to be forgotten. The event itself is erased with the rest."""

    subject: _Name = Field(description="Value of the datasets' `subject` column.")


class ModelTold(_Data):
    """What became of a model: a drift found, a release made, a rollout decided."""

    model: _Name
    detail: dict[str, Any] = Field(default_factory=dict, description="What the audit log holds of it.")


class BudgetBroken(_Data):
    """A run was held or refused by its budget."""

    run: _Name
    detail: dict[str, Any] = Field(default_factory=dict, description="What the audit log holds of it.")


INCOMING: dict[str, type[_Data]] = {
    "falaj.data.landed": DataLanded,
    "falaj.labels.landed": LabelsLanded,
    "falaj.retraining.asked": RetrainingAsked,
    "falaj.approval.given": ApprovalGiven,
    "falaj.erasure.asked": ErasureAsked,
}
OUTGOING: dict[str, type[_Data]] = {
    "falaj.drift.found": ModelTold,
    "falaj.release.made": ModelTold,
    "falaj.rollout.decided": ModelTold,
    "falaj.budget.broken": BudgetBroken,
}


class Event(BaseModel):
    """One event. `source` and `id` together name it: the same pair again is the same event."""

    model_config = ConfigDict(extra="allow", frozen=True)  # CloudEvents lets producers add attributes

    specversion: Literal["1.0"] = "1.0"
    id: Annotated[str, Field(min_length=1, max_length=200, description="Unique within the source.")]
    source: Annotated[str, Field(min_length=1, max_length=200, description="URI reference of who says it, for example /warehouse/loader.")]
    type: Annotated[str, Field(description="One of the types of this platform.")]
    time: AwareDatetime
    subject: _Name | None = None
    datacontenttype: Literal["application/json"] = "application/json"
    data: dict[str, Any] = Field(default_factory=dict)

    @property
    def key(self) -> str:
        """Name of the event over all sources."""
        return f"{self.source}#{self.id}"

    def encode(self) -> bytes:
        """Write it as JSON."""
        return self.model_dump_json(exclude_none=True).encode()


@dataclass(frozen=True)
class Delivery:
    """An event as a queue hands it out: `token` answers for it, `attempt` counts from 1."""

    token: str
    body: bytes
    attempt: int


@dataclass(frozen=True)
class DeadLetter:
    """An event that could not be acted on, and why."""

    token: str
    body: bytes
    why: str
    at: datetime


def read_event(body: bytes) -> tuple[Event, _Data]:
    """Read an event of any known type and its data. Raises EventError naming what is wrong, never with the values of `data`."""
    if len(body) > MOST_BYTES:
        raise EventError(f"an event of {len(body)} bytes; at most {MOST_BYTES} are taken: send a reference to what is larger")
    try:
        event = Event.model_validate_json(body)
    except ValidationError as error:
        raise EventError(f"not a CloudEvents 1.0 event in JSON: {_first(error)}") from None
    known = {**INCOMING, **OUTGOING}
    if event.type not in known:
        raise EventError(f"type: {event.type!r} is unknown; known are {', '.join(known)}")
    try:
        return event, known[event.type].model_validate(event.data)
    except ValidationError as error:
        raise EventError(f"data of {event.type}: {_first(error)}") from None


def check_age(event: Event, *, now: datetime) -> None:
    """Raise EventError where an event is too old to be acted on."""
    if now - event.time > LATEST:
        raise EventError(f"{event.key} is of {event.time:%Y-%m-%d}; events older than {LATEST.days} days are not acted on")


def mentions(body: bytes, texts: Sequence[str]) -> bool:
    """Whether one of these texts stands in an event as a value, at any depth; of what is no JSON, whether its bytes stand in it."""
    try:
        waiting = [json.loads(body)]
    except ValueError:
        return any(text.encode() in body for text in texts)
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
        elif isinstance(value, (str, int, float)) and str(value) in texts:
            return True
    return False


def event_schema() -> dict[str, Any]:
    """JSON schema of every event: the envelope, and the data of each type."""
    schema: dict[str, Any] = TypeAdapter(Event).json_schema()
    schema["title"] = "Falaj event (CloudEvents 1.0)"
    schema["properties"]["type"]["enum"] = [*INCOMING, *OUTGOING]
    schema["allOf"] = [
        {"if": {"properties": {"type": {"const": name}}}, "then": {"properties": {"data": data.model_json_schema()}}}
        for name, data in {**INCOMING, **OUTGOING}.items()
    ]
    return schema


def parse_fields(pairs: list[str]) -> dict[str, str]:
    """Read `name=value` pairs into data. Raises EventError."""
    found = {}
    for pair in pairs:
        name, sign, value = pair.partition("=")
        if not name or not sign:
            raise EventError(f"{pair!r} is no field; write NAME=VALUE, for example model=digits")
        found[name] = value
    return found


def _first(error: ValidationError) -> str:
    fault = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part) for part in fault["loc"]) or "the event"
    return f"{where}: {fault['msg']}"
