"""Malformed requests, made from good ones by a seed, and what a server on loopback answers: for the benchmark and for tests."""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice

_AT_ONCE = 64
_FIRST_SECONDS, _PATIENCE_SECONDS = 1.0, 30.0
_MOST_ANSWER = 1 << 20
_METHODS = ("GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD", "TRACE", "CONNECT", "get", "\x00", "P" * 300, "")
_PATHS = (
    "/../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/..%2f..%2fkeys", "//", "/%00", "/%", "/%zz", "/" + "a" * 9000, "*", "?",
    "http://evil/", "/logs/..;/x", "/\\..\\..", "/v2/models/..%2f..", "/v2/models/'; DROP TABLE models;--/infer", "/%f0%28%8c%28",
    "/a?" + "b=c&" * 3000,
)  # fmt: skip
_HEADERS = (
    "Content-Length: -1", "Content-Length: 99999999999999999999", "Content-Length: 1\r\nContent-Length: 2", "Content-Length: abc",
    "Transfer-Encoding: chunked", "Transfer-Encoding: chunked\r\nContent-Length: 5", "Transfer-Encoding: gzip, chunked, chunked",
    "Content-Type: application/xml", "Content-Type: multipart/form-data", "Content-Encoding: gzip", "Host: evil.example", "No colon",
    "Authorization: Bearer x.y.z", "Authorization: Basic AAAA", "Authorization: \xff\xfe", "Cookie: " + "a=b; " * 500, "Upgrade: websocket",
    "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\nSec-WebSocket-Version: 13", "\x00\x01: \x02",
    "Origin: null", "Expect: 100-continue", "X: " + "y" * 70_000, "Range: bytes=9-1,--", "Inference-Header-Content-Length: 99999",
    "X-Forwarded-For: 1.2.3.4", "\r\n".join(f"A{number}: b" for number in range(200)),
)  # fmt: skip
_VALUES = (
    "null", "NaN", "1e999", "-0", "[]", "{}", '""', '"\\ud800"', '"\\u0000"', "[" * 3000, '{"a":' * 900, "9" * 5000, "true", "\xff\xfe",
    '"' + "x" * 5000 + '"', '"\'; DROP TABLE runs; --"', '"{{7*7}}"', '"${jndi:ldap://x}"', '"!!python/object/apply:os.system [id]"',
    "\x80\x04\x95",
)  # fmt: skip
_NO_HTTP, _OTHER_METHOD, _OTHER_PATH, _ODD_HEADER, _LEFT_OUT = 0.03, 0.15, 0.25, 0.35, 0.1  # shares of requests
_MOST_BODY = 100_000
_SERVER_ERROR = 500
_LONG_METHOD, _LONG_HEADER = 10, 4000
_WITHOUT_ANSWER = ("HEAD", "CONNECT", "get", "TRACE")  # no body comes back, or the connection ends
_FRAMES = ("Content-Length", "Transfer-Encoding", "Expect", "Connection", "Host", "Upgrade")
_IN_A_ROW = 100
_LAST = b"GET /nothing HTTP/1.1\r\nHost: %b\r\nConnection: close\r\n\r\n"
_STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")


@dataclass(frozen=True)
class Good:
    """A good request to begin from; `head` holds further header lines, such as a token."""

    method: str
    path: str
    body: str = ""
    head: Sequence[str] = ()


@dataclass
class Answers:
    """What came back: how often each status (0: the connection was closed without one), and every answer that says too much."""

    statuses: Counter[int] = field(default_factory=Counter)
    told: list[bytes] = field(default_factory=list)
    failed: list[bytes] = field(default_factory=list)  # requests that were answered with 5xx


def malform(good: Sequence[Good], *, seed: int, count: int) -> Iterator[bytes]:
    """Yield requests as bytes; the same seed gives the same ones."""
    rng = random.Random(seed)  # noqa: S311 - repeatable, not secret
    for _ in range(count):
        if rng.random() < _NO_HTTP:
            yield rng.randbytes(rng.randint(1, 400))
            continue
        one = rng.choice(good)
        method = rng.choice(_METHODS) if rng.random() < _OTHER_METHOD else one.method
        path = rng.choice(_PATHS) if rng.random() < _OTHER_PATH else one.path
        body = _spoil(one.body, rng) if one.body else ""
        content = body.encode("utf-8", "surrogatepass")
        lines = [f"{method} {path} HTTP/1.1", "Host: HOST", "Connection: close", f"Content-Length: {len(content)}"]
        lines += ["Content-Type: application/json", *one.head]
        if rng.random() < _ODD_HEADER:
            lines.insert(rng.randint(1, len(lines)), rng.choice(_HEADERS))
        if rng.random() < _LEFT_OUT:
            del lines[rng.randrange(len(lines))]
        yield ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace") + content


def spoil(good: Sequence[Good], *, seed: int, count: int) -> Iterator[bytes]:
    """Yield requests whose frame is right and whose method, path, headers or body is not: many of them go over one connection."""
    rng = random.Random(seed)  # noqa: S311 - repeatable, not secret
    methods = [method for method in _METHODS if method.isalpha() and len(method) < _LONG_METHOD and method not in _WITHOUT_ANSWER]
    paths = [path for path in _PATHS if path.startswith("/") and path.isascii() and " " not in path]
    headers = [
        line for line in _HEADERS if not line.startswith(_FRAMES) and ":" in line and line.isprintable() and len(line) < _LONG_HEADER
    ]
    for _ in range(count):
        one = rng.choice(good)
        odd_path = rng.random() < _OTHER_PATH or not one.body
        content = _spoil(one.body, rng, least=0 if odd_path else 1).encode("utf-8", "surrogatepass") if one.body else b""
        method = rng.choice(methods) if rng.random() < _OTHER_METHOD else one.method
        lines = [f"{method} {rng.choice(paths) if odd_path else one.path} HTTP/1.1", "Host: HOST", f"Content-Length: {len(content)}"]
        lines += ["Content-Type: application/json", *one.head]
        if rng.random() < _ODD_HEADER:
            lines.append(rng.choice(headers))
        yield ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace") + content


def _spoil(body: str, rng: random.Random, *, least: int = 0) -> str:
    """Change a body in up to three places: cut, repeat, exchange a value, exchange a character."""
    for _ in range(rng.randint(least, 3)):
        place = rng.randrange(len(body) + 1)
        match rng.randrange(5):
            case 0:
                body = body[:place]
            case 1:
                body = body[:place] + body[place // 2 :]
            case 2:
                body = body[:place] + rng.choice(_VALUES) + body[place + 1 :]
            case 3:
                body = body[:place] + chr(rng.randrange(0x2FF)) + body[place + 1 :]
            case _:
                body = body.replace(rng.choice([":", ",", "{", '"', "a"]), rng.choice(_VALUES), 1)
        if len(body) > _MOST_BODY:
            break
    return body


def ask_all(address: tuple[str, int], requests: Iterator[bytes], *, secrets: Sequence[bytes]) -> Answers:
    """Send each on a connection of its own; `secrets`, and tracebacks, must be in no answer."""
    return asyncio.run(_ask_all(address, requests, secrets))


async def _ask_all(address: tuple[str, int], requests: Iterator[bytes], secrets: Sequence[bytes]) -> Answers:
    found = Answers()
    host = f"{address[0]}:{address[1]}".encode()

    async def one_after_another() -> None:
        for request in requests:
            sent = request.replace(b"HOST", host, 1)
            answer = await _ask(address, sent)
            status = int(answer[9:12]) if answer[:5] == b"HTTP/" and answer[9:12].isdigit() else 0
            found.statuses[status] += 1
            if status >= _SERVER_ERROR:
                found.failed.append(sent)
            _look_for(answer, secrets, found)

    await asyncio.gather(*(one_after_another() for _ in range(_AT_ONCE)))
    return found


def ask_in_rows(address: tuple[str, int], requests: Iterator[bytes], *, secrets: Sequence[bytes]) -> Answers:
    """Send many over each connection, one after another without waiting (pipelining): all are answered, or sent again on the next."""
    found, host = Answers(), f"{address[0]}:{address[1]}".encode()
    while batch := list(islice(requests, _IN_A_ROW)):
        waiting = [request.replace(b"HOST", host, 1) for request in batch]
        while waiting:
            answer = asyncio.run(_ask(address, b"".join(waiting) + _LAST % host))
            statuses = [int(status) for status in _STATUS.findall(answer)][: len(waiting)]
            for request, status in zip(waiting, statuses, strict=False):
                found.statuses[status] += 1
                if status >= _SERVER_ERROR:
                    found.failed.append(request)
            _look_for(answer, secrets, found)
            if not statuses:
                found.statuses[0] += 1
            waiting = waiting[max(1, len(statuses)) :]
    return found


def _look_for(answer: bytes, secrets: Sequence[bytes], found: Answers) -> None:
    if any(word in answer for word in (b"Traceback", b'File "', b"BEGIN PRIVATE", *secrets)):
        found.told.append(answer)


async def _ask(address: tuple[str, int], request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(*address)
    answer = b""
    try:
        writer.write(request)
        with suppress(ConnectionError):
            await writer.drain()
            answer = await _read(reader, _FIRST_SECONDS)
            if not answer:
                writer.write_eof()  # a body that was promised and is not there comes no more
                answer = await _read(reader, _PATIENCE_SECONDS)
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
    return answer


async def _read(reader: asyncio.StreamReader, seconds: float) -> bytes:
    """Read until the connection ends, or nothing comes for a while: then it is kept open for another request."""
    answer = b""
    with suppress(TimeoutError):
        while len(answer) < _MOST_ANSWER and (part := await asyncio.wait_for(reader.read(65536), _FIRST_SECONDS if answer else seconds)):
            answer += part
    return answer


def gateway_requests(tokens: Sequence[str]) -> list[Good]:
    """Good requests to the gateway, as people with these tokens and as strangers."""
    runs = "query A($n: Int) { runsOrError(limit: $n) { ... on Runs { results { runId } } } }"
    queries = [
        {"query": runs, "variables": {"n": 3}, "operationName": "A"},
        {"query": "{ version ...F } fragment F on Query { shouldShowNux }"},
        {"query": 'mutation { a: terminateRun(runId: "1") { __typename } }'},
        {"query": '{ logsForRun(runId: "1", afterCursor: "x") { __typename } }'},
    ]
    paths = ("/server_info", "/logs/1/compute_logs/s/out", "/notebook?path=a.ipynb", "/runs")
    found = [Good("GET", path) for path in ("/auth/ticket?t=x", "/auth/callback?code=a", "/auth/")]
    for token in tokens:
        mine = [f"Authorization: Bearer {token}"]
        found += [Good("POST", "/graphql", json.dumps(query), mine) for query in queries]
        found += [Good("GET", path, head=mine) for path in paths]
        found.append(Good("POST", "/report_asset_materialization/a", '{"metadata": {"a": 1}}', mine))
    return [*found, *(Good("POST", "/graphql", json.dumps(query)) for query in queries)]
