"""Spans as they are sent: read strictly by OTLP's own messages, told from process to process, and nothing at all without an endpoint."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from otlp_receiver import read_spans, run_receiver
from serving_process import MODEL, Server

from platform_assets import tracing
from platform_assets.errors import RequestError
from platform_assets.tracing import is_endpoint, note_span, span, start_tracing, stop_tracing, traceparent

CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
RELEASE = "00-11111111111111111111111111111111-2222222222222222-01"


@pytest.fixture
def spans():
    with run_receiver() as (url, found):
        start_tracing("steps", url)
        yield found
        stop_tracing()


def test_spans_within_spans_are_one_trace_and_the_outermost_may_have_its_parent_elsewhere(spans):
    with span("outer", parent=CALLER, run="r", model=None):
        where = traceparent()
        with span("inner", parent=CALLER, link=RELEASE):
            pass
    inner, outer = spans
    assert (outer["trace"], outer["parent"]) == (CALLER[3:35], CALLER[36:52])
    assert (inner["trace"], inner["parent"]) == (outer["trace"], outer["id"])
    assert where == f"00-{outer['trace']}-{outer['id']}-01"
    assert inner["links"] == [(RELEASE[3:35], RELEASE[36:52])]
    assert (outer["attributes"], outer["service"]) == ({"run": "r"}, "falaj-steps")
    assert outer["start"] <= inner["start"] <= inner["end"] <= outer["end"]


def test_an_error_marks_its_span_says_nothing_of_what_it_held_and_goes_on(spans):
    with pytest.raises(ValueError, match="guest 4711"), span("fails"):
        raise ValueError("guest 4711")
    (one,) = spans
    assert one["status"] == 2
    assert "4711" not in json.dumps(one["attributes"])


@given(
    st.dictionaries(
        st.text(min_size=1, max_size=9),
        st.text(max_size=9) | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False),
        max_size=4,
    )
)
def test_every_plain_attribute_is_read_back_as_it_was(attributes):
    from opentelemetry.sdk.trace import TracerProvider

    one = TracerProvider().get_tracer("t").start_span("s", attributes=attributes)
    one.end()
    assert attributes_of(tracing.encode([one])) == attributes


def attributes_of(body: bytes) -> dict:
    plain = json.loads(body)
    for resource in plain["resourceSpans"]:
        resource["resource"]["attributes"] = [{"key": "service.name", "value": {"stringValue": "x"}}]
    (found,) = read_spans(json.dumps(plain).encode())
    return found["attributes"]


@pytest.mark.parametrize("wrong", ["", "00-0-0-01", CALLER + "-more", CALLER.upper(), f"00-{'0' * 32}-{'0' * 16}-01", "\n"])
def test_what_is_no_traceparent_begins_a_trace_of_its_own(spans, wrong):
    with span("alone", parent=wrong, link=wrong):
        pass
    (one,) = spans
    assert (one["parent"], one["links"]) == ("", [])
    assert one["trace"] not in CALLER


def test_without_an_endpoint_nothing_is_traced_or_imported():
    code = (
        "import sys; from platform_assets import tracing as t\n"
        "assert t.start_tracing('x', None) is None\n"
        "with t.span('a', parent='b', run='c'): assert t.traceparent() is None\n"
        "assert not [m for m in sys.modules if m.startswith('opentelemetry')]"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_receiver_that_is_away_is_told_once_and_not_waited_for_again(caplog):
    start_tracing("steps", "http://127.0.0.1:1")
    try:
        for _ in range(3):
            with span("lost"):
                pass
    finally:
        stop_tracing()
    assert [record.getMessage()[:24] for record in caplog.records if record.name == "falaj.traces"] == ["Traces are lost for now:"]


@pytest.mark.parametrize(
    ("url", "good"),
    [
        ("http://127.0.0.1:4318", True),
        ("https://x/y", True),
        ("127.0.0.1:4318", False),
        ("ftp://x", False),
        ("http://u:p@127.0.0.1", False),
    ],
)
def test_an_endpoint_is_a_plain_address(url, good):
    assert is_endpoint(url) is good


def test_a_servers_predictions_are_in_their_callers_trace_and_linked_to_their_release_also_after_a_restart(tmp_path):
    server = Server(tmp_path)
    with run_receiver() as (url, spans):
        told = ("--traces", url, "--traces-share", "0", "--log", "json")
        server.start(*told)
        digest = server.releases.make(1)
        server.target._ask("POST", MODEL, "load", {"digest": digest, "path": str(server.releases.path(digest)), "trace": RELEASE})
        with pytest.raises(RequestError, match="field 'trace': found 7; right would be a traceparent, or nothing"):
            server.target._ask("POST", MODEL, "load", {"digest": digest, "path": str(tmp_path), "trace": 7})
        server.target.set_traffic(MODEL, live=digest)
        said = ask(server) + ask(server, CALLER)
        said += server.kill(signal.SIGTERM)
        server.start(*told, "--workers", "2")
        ask(server, CALLER)
        said += server.kill(signal.SIGTERM)
        until = time.monotonic() + 10
        while len(spans) < 2:
            assert time.monotonic() < until
            time.sleep(0.01)
    assert len(spans) == 2, "those alone whose caller asked for it"
    for one in spans:
        assert (one["name"], one["trace"], one["parent"], one["kind"]) == (f"predict {MODEL}", CALLER[3:35], CALLER[36:52], 2)
        assert one["links"] == [(RELEASE[3:35], RELEASE[36:52])]
        assert {"model": MODEL, "version": digest[:12], "rows": 1}.items() <= one["attributes"].items()
    events = [json.loads(line) for line in said.splitlines()]
    assert {one["service"] for one in events} == {"server"}
    assert f"release {digest[:12]} of {MODEL} is loaded" in [one["event"] for one in events]
    assert all((one["model"], one["version"]) == (MODEL, digest[:12]) for one in events if "release" in one["event"])


def ask(server: Server, where: str | None = None) -> str:
    with server.client("predict") as client:
        client._head |= {"traceparent": where} if where else {}
        client.predict(MODEL, [{"lead_time": 3}])
    return ""


def test_a_span_that_ends_now_began_as_long_ago_as_it_took(spans):
    note_span(tracing._started["tracer"], "predict m", seconds=1.5, parent=None, link=None, attributes={"rows": 1})
    (one,) = spans
    assert one["end"] - one["start"] == 1_500_000_000
