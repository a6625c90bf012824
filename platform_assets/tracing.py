"""Spans of OpenTelemetry, from launch to prediction, sent by OTLP over HTTP. Nothing, at no cost, in a process that was not told where to.

Where a span belongs crosses processes as a W3C `traceparent` (https://www.w3.org/TR/trace-context/): in a run's tags, on a program's
command line, in a release's entry of the audit log. The SDK does ids, sampling and batches; what it sends is written here, in OTLP's JSON
form (OTLP specification 1.5, "JSON Protobuf Encoding"): the packaged exporter would bring protobuf and an HTTP library of its own with it.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
import ssl
import time
import urllib.request
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.trace import Link, Span, Tracer

_TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
_TIMEOUT_SECONDS, _PAUSE_SECONDS = 2.0, 30.0  # a receiver that is away costs a step two seconds, once in half a minute
_LOG = logging.getLogger("falaj.traces")
_started: dict[str, Tracer] = {}  # at most one: this process's

Plain = str | int | float | bool


def start_tracing(service: str, endpoint: str | None, *, in_batches: bool = False) -> Tracer | None:
    """Send this process's spans to an OTLP endpoint from now on; None, and nothing is imported, where there is no endpoint.

    What a caller decided not to trace is not sent. `in_batches` sends from a thread; else a span is sent as it ends, so that a process may
    end at any moment. A second call changes nothing.
    """
    if endpoint is None:
        return None
    if "tracer" not in _started:
        try:
            from opentelemetry.sdk.resources import Resource
        except ModuleNotFoundError:  # a bare trainer has no SDK
            _LOG.warning("Nothing is traced here: the package opentelemetry-sdk is not installed.")
            return None
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor
        from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBased

        provider = TracerProvider(
            resource=Resource({"service.name": f"falaj-{service}", "service.namespace": "falaj"}),
            sampler=ParentBased(ALWAYS_ON),
            shutdown_on_exit=in_batches,
        )
        sender = _sender(endpoint)
        provider.add_span_processor(BatchSpanProcessor(sender) if in_batches else SimpleSpanProcessor(sender))
        _started["tracer"] = provider.get_tracer("falaj")
    return _started["tracer"]


def is_endpoint(url: str) -> bool:
    """Whether this is the address of a receiver: a scheme and a host, perhaps a path."""
    found = urlsplit(url)
    return found.scheme in {"http", "https"} and bool(found.hostname) and not (found.username or found.query or found.fragment)


@contextmanager
def span(name: str, *, parent: str | None = None, link: str | None = None, **attributes: Plain | None) -> Iterator[None]:
    """Be one span: within the current one, else within `parent` (a traceparent), else a trace of its own. An error is noted and goes on."""
    tracer = _started.get("tracer")
    if tracer is None:
        yield
        return
    from opentelemetry.trace import get_current_span

    within = None if get_current_span().get_span_context().is_valid else _context_of(parent)
    known = {key: value for key, value in attributes.items() if value is not None}
    with tracer.start_as_current_span(name, context=within, links=links_of(link), attributes=known, record_exception=False):
        yield


def traceparent() -> str | None:
    """Return where the current span belongs, to be handed on; None outside of one."""
    if not _started:
        return None
    from opentelemetry.trace import get_current_span

    found = get_current_span().get_span_context()
    return f"00-{found.trace_id:032x}-{found.span_id:016x}-{int(found.trace_flags):02x}" if found.is_valid else None


def note_span(tracer: Tracer, name: str, *, seconds: float, parent: str | None, link: str | None, attributes: Mapping[str, Plain]) -> None:
    """Send a server's span that ends now and began `seconds` ago."""
    from opentelemetry.trace import SpanKind

    now = time.time_ns()
    one: Span = tracer.start_span(
        name, context=_context_of(parent), kind=SpanKind.SERVER, links=links_of(link), attributes=attributes,
        start_time=now - int(seconds * 1e9),
    )  # fmt: skip
    one.end(now)


def links_of(text: str | None) -> Sequence[Link]:
    """Return a link to the span that a traceparent names; none where it names none."""
    from opentelemetry.trace import Link

    found = _read(text)
    return [] if found is None else [Link(found)]


def _context_of(text: str | None) -> Any:
    from opentelemetry.context import Context
    from opentelemetry.trace import NonRecordingSpan, set_span_in_context

    found = _read(text)
    return Context() if found is None else set_span_in_context(NonRecordingSpan(found), Context())


def _read(text: str | None) -> Any:
    from opentelemetry.trace import SpanContext, TraceFlags

    match = _TRACEPARENT.fullmatch(text or "")
    if match is None:
        return None
    found = SpanContext(int(match[1], 16), int(match[2], 16), is_remote=True, trace_flags=TraceFlags(int(match[3], 16)))
    return found if found.is_valid else None


def _sender(endpoint: str) -> Any:
    from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

    class Sender(SpanExporter):
        """Posts spans as JSON; what cannot be sent is lost, told once, and nobody waits for the receiver again for half a minute."""

        def __init__(self) -> None:
            self._url = f"{endpoint.rstrip('/')}/v1/traces"
            self._open = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=_trust(endpoint)))
            self._again_at, self._told = 0.0, False

        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
            """Send."""
            if time.monotonic() < self._again_at:
                return SpanExportResult.FAILURE
            request = urllib.request.Request(self._url, data=encode(spans), headers={"content-type": "application/json"})  # noqa: S310 - http or https
            try:
                with self._open.open(request, timeout=_TIMEOUT_SECONDS) as reply:
                    reply.read()
            except (OSError, ValueError) as error:
                self._again_at = time.monotonic() + _PAUSE_SECONDS
                if not self._told:
                    _LOG.warning("Traces are lost for now: %s does not take them (%s).", self._url, error)
                self._told = True
                return SpanExportResult.FAILURE
            self._told = False
            return SpanExportResult.SUCCESS

    return Sender()


def _trust(endpoint: str) -> ssl.SSLContext | None:
    return ssl.create_default_context() if endpoint.startswith("https:") else None


def encode(spans: Sequence[ReadableSpan]) -> bytes:
    """Return an ExportTraceServiceRequest in OTLP's JSON form; all spans are of one process."""
    resource = [_attribute(key, value) for key, value in spans[0].resource.attributes.items()] if spans else []
    scope = {"scope": {"name": "falaj"}, "spans": [_plain(one) for one in spans]}
    return json.dumps({"resourceSpans": [{"resource": {"attributes": resource}, "scopeSpans": [scope]}]}).encode()


def _plain(one: ReadableSpan) -> dict[str, Any]:
    from opentelemetry.trace import StatusCode

    context = one.get_span_context()
    assert context is not None
    found: dict[str, Any] = {
        "traceId": f"{context.trace_id:032x}", "spanId": f"{context.span_id:016x}", "name": one.name, "kind": one.kind.value + 1,
        "startTimeUnixNano": str(one.start_time), "endTimeUnixNano": str(one.end_time),
        "attributes": [_attribute(key, value) for key, value in (one.attributes or {}).items()],
        "links": [{"traceId": f"{link.context.trace_id:032x}", "spanId": f"{link.context.span_id:016x}"} for link in one.links],
    }  # fmt: skip
    if one.parent is not None:
        found["parentSpanId"] = f"{one.parent.span_id:016x}"
    if one.status.status_code != StatusCode.UNSET:
        found["status"] = {"code": one.status.status_code.value, "message": one.status.description or ""}
    return found


def _attribute(key: str, value: Any) -> dict[str, Any]:
    kind = {bool: "boolValue", int: "intValue", float: "doubleValue"}.get(type(value), "stringValue")
    return {"key": key, "value": {kind: str(value) if kind in {"intValue", "stringValue"} else value}}


def stop_tracing() -> None:
    """Send what waits and forget the endpoint."""
    tracer = _started.pop("tracer", None)
    if tracer is not None:
        with contextlib.suppress(OSError):
            cast("Any", tracer).span_processor.shutdown()
