"""HTTP/1.1 on raw asyncio and httptools: keep-alive, pipelining, limits, flow control, drain. Knows no route and no model."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from email.utils import formatdate
from http import HTTPStatus
from ipaddress import ip_address
from time import monotonic, perf_counter
from typing import Any

import httptools
import orjson

MAX_BODY_BYTES = 16 << 20
MAX_HEAD_BYTES = 32 << 10
_MAX_UNPARSED_BYTES = 1 << 20  # the parser holds back an unfinished header; one read may bring several requests
MAX_PIPELINED = 128
IDLE_SECONDS = 75.0
REQUEST_SECONDS = 20.0
DRAIN_IDLE_SECONDS = 0.5
_LINGER_SECONDS = 2.0  # a caller still sending gets to read the reply: closing at once would reset the connection
JSON = b"application/json"
_LOCAL_NAMES = frozenset({b"localhost", b"127.0.0.1", b"[::1]"})
_REASONS = {int(status): f"HTTP/1.1 {int(status)} {status.phrase}\r\n".encode() for status in HTTPStatus}


class Exchange:
    """One request and its reply, which may be given at any later time."""

    __slots__ = ("_connection", "_keep_alive", "_reply", "body", "head", "method", "path", "started")

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._reply: bytes | None = None
        self._keep_alive = True
        self.method = b""
        self.path = b""
        self.head: dict[bytes, bytes] = {}
        self.body = b""
        self.started = 0.0

    @property
    def loopback(self) -> bool:
        """Whether the caller is on this machine: by address, not forwarded, and not a browser led here by a foreign name."""
        if not self._connection.peer_is_loopback or b"x-forwarded-for" in self.head or b"forwarded" in self.head:
            return False
        host = self.head.get(b"host", b"localhost")
        return (host if host.endswith(b"]") else host.rpartition(b":")[0] or host) in _LOCAL_NAMES

    def respond(self, status: int, body: bytes, *, kind: bytes = JSON, extra: bytes = b"") -> None:
        """Give the reply; it is sent when those of earlier pipelined requests are. `extra` are whole header lines."""
        connection = self._connection
        closing = not self._keep_alive or (connection.server.draining and connection.ends_with(self))
        self._keep_alive = not closing
        tail = b"\r\nconnection: close\r\n\r\n" if closing else b"\r\n\r\n"
        head = b"%scontent-type: %s\r\n%s%scontent-length: %d" % (_REASONS[status], kind, connection.server.date, extra, len(body))
        self._reply = head + tail + (b"" if self.method == b"HEAD" else body)
        connection.server.count(status)
        connection.send_finished()

    def refuse(self, status: int, sentence: str, *, extra: bytes = b"") -> None:
        """Reply with an error of one sentence."""
        self.respond(status, orjson.dumps({"error": sentence}), extra=extra)

    def refuse_and_close(self, status: int, sentence: str) -> None:
        """Reply with an error after which the stream cannot be understood any more."""
        self._keep_alive = False
        self.refuse(status, sentence)


class Connection(asyncio.Protocol):
    """One connection: parses, keeps replies in the order of requests, and stops reading when too much waits."""

    def __init__(self, server: HttpServer) -> None:
        self.server = server
        self.peer_is_loopback = False
        self.active_at = monotonic()
        self.reading_since: float | None = None
        self._transport: Any = None
        self._parser = httptools.HttpRequestParser(self)
        self._waiting: deque[Exchange] = deque()
        self._current: Exchange | None = None
        self._chunks: list[bytes] = []
        self._size = 0
        self._unparsed = 0
        self._refused = False
        self._paused = False

    # asyncio
    def connection_made(self, transport: Any) -> None:
        """Remember the peer."""
        self._transport = transport
        peer = transport.get_extra_info("peername")
        self.peer_is_loopback = bool(peer) and _is_loopback(peer[0])
        self.server.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """Forget it; replies still to come go nowhere."""
        self.server.connections.discard(self)
        self._transport = None

    def pause_writing(self) -> None:
        """Stop reading from a caller who does not read replies."""
        self._pause()

    def resume_writing(self) -> None:
        """Go on."""
        self._resume()

    def data_received(self, data: bytes) -> None:
        """Feed the parser; what it cannot read ends the connection with a 400."""
        if self._refused:
            return  # lingering: what still comes is thrown away
        now = monotonic()
        self.active_at = now
        if self.reading_since is None:
            self.reading_since = now
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._refuse(HTTPStatus.BAD_REQUEST, "this server speaks HTTP/1.1 and upgrades to nothing else")
        except httptools.HttpParserError:
            self._refuse(HTTPStatus.BAD_REQUEST, "the request is not valid HTTP/1.1")
        if self._current is not None and not self._current.method:
            self._unparsed += len(data)
            if self._unparsed > _MAX_UNPARSED_BYTES:
                self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"the request's head is longer than {MAX_HEAD_BYTES} bytes")

    # httptools
    def on_message_begin(self) -> None:
        """Start an exchange."""
        self._current = Exchange(self)
        self._chunks = []
        self._size = 0

    def on_url(self, url: bytes) -> None:
        """Collect the target, which may come in parts."""
        if self._current is not None:
            self._current.path += url
            self._check_head(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header."""
        if self._current is not None:
            self._current.head[name.lower()] = value
            self._check_head(len(name) + len(value))

    def on_headers_complete(self) -> None:
        """Refuse a body that is announced too long; let a careful caller go on."""
        exchange = self._current
        if exchange is None:
            return
        exchange.method = self._parser.get_method()
        self._size = 0
        self._unparsed = 0
        announced = exchange.head.get(b"content-length", b"0")
        if announced.isdigit() and int(announced[:20]) > MAX_BODY_BYTES:
            self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the body has {int(announced[:20])} bytes, {MAX_BODY_BYTES} is the limit")
        elif exchange.head.get(b"expect", b"").lower() == b"100-continue" and self._transport is not None:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        """Collect the body up to its limit."""
        self._size += len(body)
        if self._size > MAX_BODY_BYTES:
            self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the body is longer than the limit of {MAX_BODY_BYTES} bytes")
        elif not self._refused:
            self._chunks.append(body)

    def on_message_complete(self) -> None:
        """Hand a whole request on."""
        exchange, self._current = self._current, None
        if exchange is None or self._refused:
            return
        exchange.body = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        exchange._keep_alive = self._parser.should_keep_alive()  # noqa: SLF001 - the two classes are one mechanism
        exchange.started = perf_counter()
        self.reading_since = None
        self._chunks = []
        self._waiting.append(exchange)
        if len(self._waiting) >= MAX_PIPELINED:
            self._pause()
        self.server.handle(exchange)

    # replies
    def send_finished(self) -> None:
        """Send every reply that no earlier one holds back; after a last one nothing follows."""
        if self._transport is None:
            return
        ready: list[bytes] = []
        closing = False
        while self._waiting and not closing and (reply := self._waiting[0]._reply) is not None:  # noqa: SLF001
            exchange = self._waiting.popleft()
            ready.append(reply)
            closing = not exchange._keep_alive  # noqa: SLF001
        if ready:
            self.active_at = monotonic()
            self._transport.write(ready[0] if len(ready) == 1 else b"".join(ready))
        if closing:
            self._refused = True
            self._waiting.clear()
            self._transport.write_eof()
        elif self._paused and len(self._waiting) < MAX_PIPELINED // 2:
            self._resume()

    def sweep(self, now: float) -> None:
        """Close what is idle, and answer 408 to a request that trickles in."""
        if self._transport is None or self._waiting:
            return
        if self._refused:
            if now - self.active_at > _LINGER_SECONDS:
                self._transport.close()
        elif self.reading_since is not None and now - self.reading_since > REQUEST_SECONDS:
            self._refuse(HTTPStatus.REQUEST_TIMEOUT, f"the request was not complete after {REQUEST_SECONDS:g} seconds")
        elif self.reading_since is None and now - self.active_at > (DRAIN_IDLE_SECONDS if self.server.draining else IDLE_SECONDS):
            self._transport.close()

    def ends_with(self, exchange: Exchange) -> bool:
        """Whether this is the last request read so far."""
        return bool(self._waiting) and self._waiting[-1] is exchange

    def abort(self) -> None:
        """Give up on this caller."""
        if self._transport is not None:
            self._transport.abort()

    def _check_head(self, size: int) -> None:
        self._size += size
        if self._size > MAX_HEAD_BYTES:
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"the request's head is longer than {MAX_HEAD_BYTES} bytes")

    def _refuse(self, status: int, sentence: str) -> None:
        if self._refused:
            return
        self._refused = True
        exchange = Exchange(self)
        self._waiting.append(exchange)
        self._current = None
        exchange.refuse_and_close(status, sentence)

    def _pause(self) -> None:
        if self._transport is not None and not self._paused:
            self._paused = True
            self._transport.pause_reading()

    def _resume(self) -> None:
        if self._transport is not None and self._paused:
            self._paused = False
            self._transport.resume_reading()


class HttpServer:
    """All connections, what they share, and the way they end."""

    def __init__(self, handle: Callable[[Exchange], None]) -> None:
        self.handle = handle
        self.connections: set[Connection] = set()
        self.replies: dict[int, int] = {}
        self.draining = False
        self.date = b""
        self._tick()

    def count(self, status: int) -> None:
        """Count a reply by its status."""
        self.replies[status] = self.replies.get(status, 0) + 1

    async def keep_house(self) -> None:
        """Once a second: the Date header, and connections that wait for nothing."""
        while True:
            self._tick()
            await asyncio.sleep(1.0)

    def _tick(self) -> None:
        self.date = b"date: %s\r\n" % formatdate(usegmt=True).encode()
        now = monotonic()
        for connection in list(self.connections):
            connection.sweep(now)

    async def drain(self, seconds: float) -> None:
        """Answer what was accepted, each with `Connection: close`; after this time give up on the rest."""
        self.draining = True
        until = monotonic() + seconds
        while self.connections and monotonic() < until:
            await asyncio.sleep(0.05)
            self._tick()
        for connection in list(self.connections):
            connection.abort()


def _is_loopback(host: str) -> bool:
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback
