"""A receiver of traces on loopback: OTLP over HTTP, read strictly by the protocol's own messages."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from google.protobuf.json_format import ParseDict
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


def read_spans(body: bytes) -> list[dict[str, Any]]:
    """The spans of a request, as plain values; what the protocol does not know is an error."""
    request = ParseDict(_as_protobuf_json(json.loads(body)), ExportTraceServiceRequest())
    found: list[dict[str, Any]] = []
    for resource in request.resource_spans:
        (service,) = [one.value.string_value for one in resource.resource.attributes if one.key == "service.name"]
        found += [_plain(service, one) for scope in resource.scope_spans for one in scope.spans]
    return found


def _plain(service: str, one: Any) -> dict[str, Any]:
    return {
        "service": service, "name": one.name, "trace": one.trace_id.hex(), "id": one.span_id.hex(), "kind": one.kind,
        "parent": one.parent_span_id.hex(), "start": one.start_time_unix_nano, "end": one.end_time_unix_nano,
        "links": [(link.trace_id.hex(), link.span_id.hex()) for link in one.links], "status": one.status.code,
        "attributes": {part.key: getattr(part.value, part.value.WhichOneof("value")) for part in one.attributes},
    }  # fmt: skip


def _as_protobuf_json(value: Any) -> Any:
    """OTLP's JSON writes ids as hexadecimal, protobuf's as base64; all else is the same."""
    if isinstance(value, list):
        return [_as_protobuf_json(one) for one in value]
    if not isinstance(value, dict):
        return value
    ids = ("traceId", "spanId", "parentSpanId")
    return {
        key: base64.b64encode(bytes.fromhex(one)).decode() if key in ids else _as_protobuf_json(one) for key, one in value.items()
    }  # fmt: skip


@contextmanager
def run_receiver() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Listen on a free port; yield the address and the spans that arrive."""
    spans: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.path == "/v1/traces":
                spans.extend(read_spans(body))
            self.send_response(200 if self.path == "/v1/traces" else 404)
            self.send_header("content-length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", spans
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
