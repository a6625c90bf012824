"""HTTP/1.1 on raw asyncio and httptools: keep-alive, pipelining, limits, flow control, drain. Knows no route and no model."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from email.utils import formatdate
from http import HTTPStatus
from ipaddress import ip_address
from time import monotonic, time
from typing import Any

import httptools

from platform_assets.errors import ServingError
from platform_assets.identity.services import Service, read_service
from platform_assets.stages.serving.exchange import JSON, STATUS_LINES, Exchange, Head

MAX_BODY_BYTES = 16 << 20
MAX_HEAD_BYTES = 32 << 10
_MAX_UNPARSED_BYTES = 1 << 20  # the parser holds back an unfinished header; one read may bring several requests
MAX_PIPELINED = 128
IDLE_SECONDS = 75.0
REQUEST_SECONDS = 20.0
DRAIN_IDLE_SECONDS = 0.5
_LINGER_SECONDS = 2.0  # a caller still sending gets to read the reply: closing at once would reset the connection
_KNOWN_HEADS, _KNOWN_HEAD_BYTES = 512, 4096  # nobody fills memory with heads: only those that led somewhere are kept
_NOT_PLAIN = (b"transfer-encoding", b"expect", b"upgrade")


class Connection(asyncio.Protocol):
    """One connection: parses, keeps replies in the order of requests, and stops reading when too much waits."""

    def __init__(self, server: HttpServer) -> None:
        self.server = server
        self.peer_is_loopback = False
        self.service: Service | None = None
        self.active_at = server.now
        self.reading_since: float | None = None
        self._transport: Any = None
        self._parser = httptools.HttpRequestParser(self)
        self._waiting: deque[Exchange] = deque()
        self._current: Head | None = None
        self._chunks: list[bytes] = []
        self._size = 0
        self._unparsed = 0
        self._refused = False
        self._paused = False
        self._between = True  # between two requests: the next byte begins a head
        self._finished = 0
        self._learnt: Head | None = None

    # asyncio
    def connection_made(self, transport: Any) -> None:
        """Remember the peer."""
        self._transport = transport
        peer = transport.get_extra_info("peername")
        self.peer_is_loopback = bool(peer) and _is_loopback(peer[0])
        self.service = read_service(transport.get_extra_info("peercert"))
        self.server.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """Forget it; replies still to come go nowhere."""
        self.server.connections.discard(self)
        if self.server.asked_last is self:
            self.server.asked_last = None
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
        now = self.active_at = self.server.now
        try:
            if self._between:
                data = self._take_known(data)
            if data:
                self._feed(data)
        except httptools.HttpParserUpgrade:
            self._refuse(HTTPStatus.BAD_REQUEST, "this server speaks HTTP/1.1 and upgrades to nothing else")
        except httptools.HttpParserError:
            self._refuse(HTTPStatus.BAD_REQUEST, "the request is not valid HTTP/1.1")
        if self._between:
            self.reading_since = None
        elif self.reading_since is None:
            self.reading_since = now
        if self._current is not None and not self._current.method:
            self._unparsed += len(data)
            if self._unparsed > _MAX_UNPARSED_BYTES:
                self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"the request's head is longer than {MAX_HEAD_BYTES} bytes")

    def _take_known(self, data: bytes) -> bytes:
        """Take whole requests whose head was parsed before; return what is left for the parser.

        A caller sends the same head again and again: looking it up costs a twentieth of parsing, routing and splitting it anew.
        """
        server, at = self.server, 0
        alone, server.asked_last = server.asked_last is self and not self._waiting, self
        while (end := data.find(b"\r\n\r\n", at)) >= 0:
            head = server.known_heads.get(data[at:end] if at else data[:end])
            stop = end + 4 + head.length if head is not None else 0
            if head is None or stop > len(data) or self._refused:
                break
            self._take(Exchange(self, head, data[end + 4 : stop], alone and not at and stop == len(data)))
            at = stop
            if at == len(data):
                return b""
        return b"" if self._refused else data[at:] if at else data

    def _feed(self, data: bytes) -> None:
        """Parse; remember the head of a plain request that came whole, by its bytes."""
        whole, self._between = self._between, False
        self._finished = 0
        self._parser.feed_data(data)
        if not whole or self._finished != 1 or not self._between or self._learnt is None:
            return
        head, end = self._learnt, data.find(b"\r\n\r\n")
        plain = head.target is not None and head.keep_alive and not any(name in head.fields for name in _NOT_PLAIN)
        if plain and end < _KNOWN_HEAD_BYTES and end + 4 + head.length == len(data):
            if len(self.server.known_heads) >= _KNOWN_HEADS:
                self.server.known_heads.clear()
            self.server.known_heads[data[:end]] = head

    # httptools
    def on_message_begin(self) -> None:
        """Start an exchange."""
        self._current = Head()
        self._between = False
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
            self._current.fields[name.lower()] = value
            self._check_head(len(name) + len(value))

    def on_headers_complete(self) -> None:
        """Refuse a body that is announced too long; let a careful caller go on."""
        head = self._current
        if head is None:
            return
        head.method = self._parser.get_method()
        self._size = 0
        self._unparsed = 0
        announced = head.fields.get(b"content-length", b"0")
        if announced.isdigit() and int(announced[:20]) > MAX_BODY_BYTES:
            self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the body has {int(announced[:20])} bytes, {MAX_BODY_BYTES} is the limit")
        elif head.fields.get(b"expect", b"").lower() == b"100-continue" and self._transport is not None:
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
        head, self._current = self._current, None
        if head is None or self._refused:
            return
        body = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        head.keep_alive, head.length = self._parser.should_keep_alive(), len(body)
        self._chunks = []
        self._between, self._learnt = True, head
        self._finished += 1
        self._take(Exchange(self, head, body))

    def _take(self, exchange: Exchange) -> None:
        waiting = self._waiting
        waiting.append(exchange)
        if len(waiting) >= MAX_PIPELINED:
            self._pause()
        self.server.handle(exchange)

    # replies
    def send_finished(self) -> None:
        """Send every reply that no earlier one holds back; after a last one nothing follows."""
        if self._transport is None:
            return
        waiting = self._waiting
        if len(waiting) == 1 and not self._paused:  # as a rule: nothing is pipelined
            reply, closing = waiting[0]._reply, waiting[0]._closing  # noqa: SLF001 - the two classes are one mechanism
            if reply is not None and not closing:
                waiting.clear()
                self._transport.write(reply)
                return
        ready: list[bytes] = []
        closing = False
        while waiting and not closing and (reply := waiting[0]._reply) is not None:  # noqa: SLF001
            ready.append(reply)
            closing = waiting.popleft()._closing  # noqa: SLF001
        if ready:
            self.active_at = self.server.now
            self._transport.write(ready[0] if len(ready) == 1 else b"".join(ready))
        if closing:
            self._refused = True
            self._waiting.clear()
            if self._transport.can_write_eof():
                self._transport.write_eof()
            else:  # TLS
                self._transport.close()
        elif self._paused and len(self._waiting) < MAX_PIPELINED // 2:
            self._resume()

    def sweep(self, now: float) -> None:
        """Close what is idle, and answer 408 to a request that trickles in."""
        if self._transport is None or self._waiting:
            return
        if self._refused:
            if now - self.active_at > _LINGER_SECONDS:
                self._transport.close()
        elif self.service is not None and self.reading_since is None and self.service.until < time():
            self._transport.close()  # it comes back with the certificate that it has by now
        elif self.reading_since is not None and now - self.reading_since > REQUEST_SECONDS:
            self._refuse(HTTPStatus.REQUEST_TIMEOUT, f"the request was not complete after {REQUEST_SECONDS:g} seconds")
        elif self.reading_since is None and now - self.active_at > (DRAIN_IDLE_SECONDS if self.server.draining else IDLE_SECONDS):
            self._transport.close()

    def distrust(self) -> None:
        """Hold what this caller's certificate says for nothing from now on."""
        if self.service is not None:
            self.service = replace(self.service, until=0.0)
            self.sweep(self.server.now)  # now, if nothing is under way: what it asks next comes over a new connection

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
        exchange = Exchange(self, Head())
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

    def __init__(self, handle: Callable[[Exchange], None], decline: Callable[[Exchange, ServingError], None]) -> None:
        self.handle, self.decline = handle, decline
        self.connections: set[Connection] = set()
        self.replies: dict[int, int] = {}
        self.draining = False
        self.date = self.usual_head = b""
        self.now = 0.0  # to the second: idle callers are measured by it
        self.known_heads: dict[bytes, Head] = {}
        self.asked_last: Connection | None = None
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
        self.date = b"date: %b\r\n" % formatdate(usegmt=True).encode()
        self.usual_head = b"%bcontent-type: %b\r\n%bcontent-length: " % (STATUS_LINES[HTTPStatus.OK], JSON, self.date)
        now = self.now = monotonic()
        for connection in list(self.connections):
            connection.sweep(now)

    def distrust_services(self) -> None:
        """Certificates that were shown so far hold no more; who showed one may show another."""
        for connection in list(self.connections):
            connection.distrust()

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
