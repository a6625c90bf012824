"""The load generator: closed loop over kept connections, or a fixed rate; raw sockets and epoll, so that it costs less than any server.

Run as a program it reads one order as JSON on standard input and writes one line of figures; the server's CPU is measured by who starts it.
"""

from __future__ import annotations

import json
import select
import socket
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Any

_READ_BYTES = 1 << 18
_TIMEOUT_SECONDS = 30.0


@dataclass
class Order:
    """What to ask, how often. `requests` are spoken in turn; without a `rate` (requests a second in all) an answered caller asks again."""

    host: str
    port: int
    connections: int
    seconds: float
    requests: list[bytes]
    rate: float = 0.0
    version_field: bytes = b""


@dataclass
class _Caller:
    stream: socket.socket
    sent_at: float = 0.0
    due_at: float = 0.0
    missing: int = -1
    waiting: bool = False
    parts: list[bytes] = field(default_factory=list)


def encode_request(path: str, body: bytes, *, token: str = "", kind: str = "application/json", extra: str = "") -> bytes:
    """Return one POST as bytes. `extra` are whole header lines."""
    right = f"authorization: Bearer {token}\r\n" if token else ""
    head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\n{right}content-type: {kind}\r\n{extra}content-length: {len(body)}\r\n\r\n"
    return head.encode() + body


def run_load(order: Order) -> dict[str, Any]:
    """Ask for `seconds`; return requests, replies by status, failures, latencies in ms, and the versions that answered."""
    load = _Load(order)
    try:
        return load.run()
    finally:
        load.close()


class _Load:
    def __init__(self, order: Order) -> None:
        self._order = order
        self._poll = select.epoll()
        self._callers: dict[int, _Caller] = {}
        self._due: list[tuple[float, int]] = []  # at a fixed rate: when whose turn is next
        self._next = 0
        self._latencies: list[float] = []
        self._statuses: Counter[str] = Counter()
        self._versions: Counter[str] = Counter()
        self._failures = 0
        for _ in range(order.connections):
            self._connect()

    def close(self) -> None:
        for caller in self._callers.values():
            caller.stream.close()
        self._poll.close()

    def run(self) -> dict[str, Any]:
        order, now = self._order, time.perf_counter()
        until, began = now + order.seconds, now
        gap = order.connections / order.rate if order.rate else 0.0
        for place, caller in enumerate(self._callers.values()):
            caller.due_at = now + gap * place / max(order.connections, 1)
            if order.rate:
                heappush(self._due, (caller.due_at, caller.stream.fileno()))
            else:
                self._send(caller)
        while time.perf_counter() < until:
            self._turn(gap, 0.05)
        self._drain()
        spent = time.perf_counter() - began
        ordered = sorted(self._latencies)
        return {
            "requests": len(ordered), "seconds": spent, "rate": len(ordered) / spent, "failures": self._failures,
            "statuses": dict(self._statuses), "versions": dict(self._versions),
            "p50_ms": _quantile(ordered, 0.5), "p99_ms": _quantile(ordered, 0.99), "max_ms": _quantile(ordered, 1.0),
        }  # fmt: skip

    def _turn(self, gap: float, longest: float) -> None:
        wait, due = longest, self._due
        if gap:
            now = time.perf_counter()
            while due and due[0][0] <= now:
                caller = self._callers.get(heappop(due)[1])
                if caller is not None:
                    self._send(caller)
            wait = max(0.0, min(longest, due[0][0] - time.perf_counter())) if due else longest
        for descriptor, _ in self._poll.poll(wait, self._order.connections):
            caller = self._callers[descriptor]
            if self._read(caller) and not gap:
                self._send(caller)
            elif gap and not caller.waiting:
                caller.due_at = max(caller.due_at + gap, time.perf_counter() - 1.0)
                heappush(due, (caller.due_at, caller.stream.fileno()))

    def _drain(self) -> None:
        until = time.perf_counter() + _TIMEOUT_SECONDS
        while any(caller.waiting for caller in self._callers.values()):
            for descriptor, _ in self._poll.poll(0.05, self._order.connections):
                self._read(self._callers[descriptor])
            if time.perf_counter() > until:
                self._failures += sum(caller.waiting for caller in self._callers.values())
                return

    def _connect(self) -> _Caller:
        stream = socket.create_connection((self._order.host, self._order.port), timeout=_TIMEOUT_SECONDS)
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        stream.setblocking(False)
        caller = _Caller(stream)
        self._callers[stream.fileno()] = caller
        self._poll.register(stream, select.EPOLLIN)
        return caller

    def _send(self, caller: _Caller) -> None:
        data = self._order.requests[self._next]
        self._next = (self._next + 1) % len(self._order.requests)
        # At a fixed rate latency counts from when the request was due: a late generator must not hide a slow server.
        caller.sent_at = caller.due_at if self._order.rate else time.perf_counter()
        caller.waiting, caller.missing, caller.parts = True, -1, []
        view = memoryview(data)
        while view:
            try:
                view = view[caller.stream.send(view) :]
            except BlockingIOError:
                select.select([], [caller.stream], [], _TIMEOUT_SECONDS)

    def _read(self, caller: _Caller) -> bool:
        """Whether a whole reply is there now."""
        try:
            data = caller.stream.recv(_READ_BYTES)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if not data:
            return self._lost(caller)
        caller.parts.append(data)
        if caller.missing < 0:
            data = b"".join(caller.parts)
            end = data.find(b"\r\n\r\n")
            if end < 0:
                caller.parts = [data]
                return False
            caller.missing = end + 4 + _content_length(data[:end]) - len(data)
            caller.parts = [data]
        else:
            caller.missing -= len(data)
        if caller.missing > 0:
            return False
        self._take(caller, b"".join(caller.parts) if len(caller.parts) > 1 else caller.parts[0])
        return True

    def _take(self, caller: _Caller, reply: bytes) -> None:
        self._latencies.append(time.perf_counter() - caller.sent_at)
        caller.waiting = False
        self._statuses[reply[9:12].decode("latin-1")] += 1
        if (mark := self._order.version_field) and (at := reply.find(mark)) >= 0:
            at += len(mark)
            self._versions[reply[at : reply.find(b'"', at)].decode("latin-1")] += 1

    def _lost(self, caller: _Caller) -> bool:
        """The connection ended: a failure where a reply was due. Another one takes its place."""
        self._failures += caller.waiting
        self._poll.unregister(caller.stream)
        del self._callers[caller.stream.fileno()]
        caller.stream.close()
        again = self._connect()
        again.due_at = caller.due_at
        if not self._order.rate:
            self._send(again)
        return False


def _content_length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    raise ValueError(f"a reply without content-length: {head[:200]!r}")


def _quantile(ordered: list[float], share: float) -> float:
    return 1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


def main() -> None:
    """Carry out the order on standard input."""
    asked = json.load(sys.stdin)
    asked["requests"] = [bytes.fromhex(request) for request in asked["requests"]]
    asked["version_field"] = asked.get("version_field", "").encode()
    sys.stdout.write(json.dumps(run_load(Order(**asked))) + "\n")


if __name__ == "__main__":
    main()
