"""An event is read whole or refused in one sentence, whatever bytes come."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from platform_assets.errors import EventError
from platform_assets.specs.events import INCOMING, MOST_BYTES, OUTGOING, Event, event_schema, parse_fields, read_event

GOOD = {
    "specversion": "1.0", "id": "1", "source": "/warehouse", "type": "falaj.data.landed", "time": "2026-01-02T03:04:05Z",
    "data": {"dataset": "hotels"},
}  # fmt: skip


def body(**changes) -> bytes:
    return json.dumps({**GOOD, **changes}).encode()


def test_a_good_event_is_read_with_its_data_and_added_attributes():
    event, data = read_event(body(traceparent="00-a-b-01"))
    assert (event.key, data.dataset) == ("/warehouse#1", "hotels")
    assert event.time == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert json.loads(event.encode())["traceparent"] == "00-a-b-01"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"type": "falaj.data.lost"}, "known are falaj.data.landed"),
        ({"specversion": "0.3"}, "specversion"),
        ({"id": ""}, "id: "),
        ({"time": "yesterday"}, "time: "),
        ({"time": "2026-01-02T03:04:05"}, "time: "),
        ({"data": {}}, "data of falaj.data.landed: dataset: Field required"),
        ({"data": {"dataset": "a", "table": "b"}}, "table: "),
        ({"data": ["a"]}, "data: "),
        ({"data": {"dataset": "x" * MOST_BYTES}}, "bytes; at most 65536"),
    ],
)
def test_a_bad_event_is_named_in_one_sentence(changes, said):
    with pytest.raises(EventError) as refused:
        read_event(body(**changes))
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_values_of_the_data_are_never_in_the_sentence():
    with pytest.raises(EventError) as refused:
        read_event(body(data={"dataset": ["canary-4711"]}))
    assert "canary" not in str(refused.value)


@given(
    st.binary(max_size=300)
    | st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists).map(lambda one: json.dumps(one).encode())
)
def test_whatever_comes_is_an_event_or_an_event_error(given_body):
    with pytest.raises(EventError):
        read_event(given_body)


@given(st.text(min_size=1, max_size=50), st.text(min_size=1, max_size=50), st.text(min_size=1, max_size=50))
def test_what_is_written_is_read_again(name, source, dataset):
    event = Event(id=name, source=source, type="falaj.data.landed", time=datetime.now(UTC), data={"dataset": dataset})
    assert read_event(event.encode())[0] == event


def test_the_published_schema_accepts_what_is_read_and_knows_every_type():
    schema = event_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    validator.validate(json.loads(body()))
    assert not validator.is_valid(json.loads(body(type="falaj.data.lost")))
    assert schema["properties"]["type"]["enum"] == [*INCOMING, *OUTGOING]


def test_fields_are_name_and_value():
    assert parse_fields(["model=a=b", "why="]) == {"model": "a=b", "why": ""}
    with pytest.raises(EventError, match="NAME=VALUE"):
        parse_fields(["model"])
