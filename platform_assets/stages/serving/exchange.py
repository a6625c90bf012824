"""One request and its reply, as bytes. Connections, limits and their end are http.py's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from time import perf_counter
from typing import TYPE_CHECKING

import orjson

from platform_assets.errors import ServingError

if TYPE_CHECKING:
    from platform_assets.identity.services import Service
    from platform_assets.stages.serving.http import Connection

JSON = b"application/json"
_LOCAL_NAMES = frozenset({b"localhost", b"127.0.0.1", b"[::1]"})
STATUS_LINES = {int(status): f"HTTP/1.1 {int(status)} {status.phrase}\r\n".encode() for status in HTTPStatus}


@dataclass(slots=True, eq=False)
class Head:
    """A request's line and headers. Names are in lower case; `length` is the body's, as announced.

    Kept from request to request where a caller sends the same again, with what the application found out about it: `target` answers it,
    and until `admitted_until` (on the wall clock) its right need not be looked at.
    """

    method: bytes = b""
    path: bytes = b""
    fields: dict[bytes, bytes] = field(default_factory=dict)
    keep_alive: bool = True
    length: int = 0
    target: Callable[[Exchange], None] | None = None
    admitted_until: float = 0.0


class Exchange:
    """One request and its reply, which may be given at any later time."""

    __slots__ = ("_closing", "_connection", "_reply", "alone", "body", "head", "started")

    def __init__(self, connection: Connection, head: Head, body: bytes = b"", alone: bool = False) -> None:  # noqa: FBT001, FBT002 - once a request
        self._connection = connection
        self.alone = alone  # nobody else asks at present: waiting for company would only cost a turn of the loop
        self._reply: bytes | None = None
        self._closing = not head.keep_alive
        self.head = head
        self.body = body
        self.started = perf_counter()

    @property
    def loopback(self) -> bool:
        """Whether the caller is on this machine: by address, not forwarded, and not a browser led here by a foreign name."""
        if not self._connection.peer_is_loopback or b"x-forwarded-for" in self.head.fields or b"forwarded" in self.head.fields:
            return False
        host = self.head.fields.get(b"host", b"localhost")
        return (host if host.endswith(b"]") else host.rpartition(b":")[0] or host) in _LOCAL_NAMES

    @property
    def service(self) -> Service | None:
        """Whose certificate the caller showed."""
        return self._connection.service

    @property
    def answered(self) -> bool:
        """Whether the reply was given."""
        return self._reply is not None

    @property
    def traceparent(self) -> str | None:
        """Where the request belongs in a trace, as its caller says."""
        found = self.head.fields.get(b"traceparent")
        return None if found is None else found.decode("latin-1")

    def respond(self, status: int, body: bytes, *, kind: bytes = JSON, extra: bytes = b"") -> None:
        """Give the reply; it is sent when those of earlier pipelined requests are.

        `extra` are whole header lines; where `kind` is empty the content type is among them.
        """
        connection = self._connection
        server = connection.server
        if server.draining and connection.ends_with(self):
            self._closing = True
        tail = b"\r\nconnection: close\r\n\r\n" if self._closing else b"\r\n\r\n"
        typed = b"content-type: %b\r\n" % kind if kind else b""
        head = b"%b%b%b%bcontent-length: %d" % (STATUS_LINES[status], typed, server.date, extra, len(body))
        self._reply = head + tail + (b"" if self.head.method == b"HEAD" else body)
        server.count(status)
        connection.send_finished()

    def answer(self, body: bytes, extra: bytes) -> None:
        """Give a good reply; header lines of its own tell its content type, too."""
        connection = self._connection
        server = connection.server
        if extra or self._closing or server.draining:
            self.respond(HTTPStatus.OK, body, kind=b"" if extra else JSON, extra=extra)
            return
        self._reply = b"%b%d\r\n\r\n%b" % (server.usual_head, len(body), body)  # nine replies of ten
        server.count(200)
        connection.send_finished()

    def decline(self, error: ServingError) -> None:
        """Reply with the refusal that an error stands for."""
        self._connection.server.decline(self, error)

    def refuse(self, status: int, sentence: str, *, extra: bytes = b"") -> None:
        """Reply with an error of one sentence."""
        self.respond(status, orjson.dumps({"error": sentence}), extra=extra)

    def refuse_and_close(self, status: int, sentence: str) -> None:
        """Reply with an error after which the stream cannot be understood any more."""
        self._closing = True
        self.refuse(status, sentence)
