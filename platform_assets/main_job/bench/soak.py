"""Area `soak`: half an hour of mixed good and bad load; no 5xx but the declared 503s, and memory that stays.

Good: JSON, named columns, binary tensors of 1 and 32 rows. Bad: broken HTTP and JSON, wrong fields, wrong tensors, forged tokens, foreign
paths, callers who leave in the middle. Beside it: swaps, loads of good and of poisoned releases, metrics read, the log rotated.
"""

from __future__ import annotations

import json
import os
import random
import socket
import tempfile
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from platform_assets.errors import FalajError
from platform_assets.main_job.bench.core import Row, describe_row, judge_row
from platform_assets.main_job.bench.serving_load import encode_request
from platform_assets.main_job.bench.serving_setup import (
    MODEL,
    Falaj,
    binary_requests,
    column_requests,
    finish_load,
    json_requests,
    running_falaj,
    start_load,
)

if TYPE_CHECKING:
    from rich.console import Console

_SECONDS, _QUICK_SECONDS = 1800.0, 60.0
_FLAT = 1.05
_ROUND_SECONDS = 5.0
_PATHS = (f"/v2/models/{MODEL}/infer", f"/v1/models/{MODEL}:predict")
_WORKERS = "2"
_KINDS = ("noise", "forged", "foreign", "body", "body")
_FORGED = "a.b.c"
_LEAVES = 0.2  # share of bad callers who leave in the middle of a request
_RELEASES = 3  # beside the first one


def measure(*, quick: bool, console: Console) -> list[Row]:
    """Load the server with two workers for half an hour. Quick: a minute."""
    return soak(_QUICK_SECONDS if quick else _SECONDS, console=console)


def soak(seconds: float, *, console: Console) -> list[Row]:
    """Load the server for so long; judge replies and memory."""
    console.print(f"soak, {seconds:g} s of good and bad load on {_WORKERS} workers ...")
    with tempfile.TemporaryDirectory() as name, running_falaj(Path(name), "--workers", _WORKERS) as ours:
        statuses: Counter[str] = Counter()
        stop = threading.Event()
        bad = threading.Thread(target=_misbehave, args=(ours, stop, statuses), daemon=True)
        bad.start()
        until, memory, good, rounds = time.monotonic() + seconds, [], Counter[str](), 0
        failures = 0
        try:
            while time.monotonic() < until:
                found = _one_round(ours, rounds, min(_ROUND_SECONDS, max(1.0, until - time.monotonic())))
                good.update(found["statuses"])
                failures += found["failures"]
                memory.append(ours.own_bytes() / 1e6)
                rounds += 1
        finally:
            stop.set()
            bad.join(timeout=30)
        with ours.admin() as client:
            facts = client.request("GET", "/status")["server"]
    settled = memory[len(memory) // 4 :] or memory
    half = max(1, len(settled) // 2)
    grown = (sum(settled[half:]) / max(1, len(settled[half:])) if settled[half:] else settled[0]) / (sum(settled[:half]) / half)
    fives = {status: number for status, number in facts["replies"].items() if status.startswith("5")}
    return [
        describe_row(f"soak of {seconds:g} s: good requests", value=sum(good.values()), unit="requests"),
        describe_row("soak: bad requests that were answered", value=sum(statuses.values()), unit="requests"),
        describe_row("soak: 503 of all replies", value=fives.get("503", 0), unit="replies"),
        judge_row("soak: 5xx other than 503", value=sum(fives.values()) - fives.get("503", 0), unit="replies", must=0, better="lower"),
        judge_row(
            "soak: good requests not answered with 200",
            value=sum(good.values()) - good["200"] + failures,
            unit="requests",
            must=0,
            better="lower",
        ),
        judge_row("soak: bad requests answered with 200", value=statuses["200"], unit="requests", must=0, better="lower"),
        judge_row("soak: rows of the log dropped", value=facts["log_dropped_rows"], unit="rows", must=0, better="lower"),
        judge_row("soak: memory of the last part against the part before", value=round(grown, 3), unit="x", must=_FLAT, better="lower"),
    ]


def _one_round(ours: Falaj, number: int, seconds: float) -> dict[str, Any]:
    """Good load of every kind; meanwhile a swap, a load and a look."""
    token = ours.token()
    requests = [
        *json_requests(1, token=token),
        *column_requests(2, token=token),
        *binary_requests(32, token=token),
        *json_requests(3, token=token),
    ]
    order = {"host": ours.host, "port": ours.port, "connections": 16, "seconds": seconds, "requests": [one.hex() for one in requests]}
    generator = start_load(order)
    target = ours.target
    kept = ours.releases.store.digests()
    digest = ours.releases.make(2 + number) if number < _RELEASES else kept[number % len(kept)]
    target.load(MODEL, digest)
    before = target.status(MODEL)["live"]
    target.set_traffic(MODEL, live=digest)
    with suppress(FalajError):  # a release whose folder is not there is refused
        target.load(MODEL, "0" * 64)
    if target.status(MODEL)["live"] != digest:
        raise FalajError("soak: a refused release changed what is live")
    if before != digest:
        target.set_traffic(MODEL, live=before, challenger=digest, mode="canary", percent=50)
    with ours.admin() as client:
        client.request("GET", "/status")
    for segment in target.rotate_log(MODEL):
        segment.unlink()
    return finish_load(generator)


def _misbehave(ours: Falaj, stop: threading.Event, statuses: Counter[str]) -> None:
    """Send what no server should fall over, one at a time, and count what is answered."""
    chance = random.Random(0)  # noqa: S311 - the same mischief each time
    token = ours.token()
    bodies = [
        b"", b"{", b"[]", b"null", b'{"rows": []}', b'{"rows": [{"nope": 1}]}', b'{"inputs": []}', b"[" * 10_000, b"\xff" * 100,
        json.dumps({"inputs": [{"name": "numeric", "datatype": "FP32", "shape": [1, 64], "data": ["x"] * 64}]}).encode(),
        json.dumps({"inputs": [{"name": "numeric", "datatype": "FP32", "shape": [9, 64], "data": [1.0]}]}).encode(),
        json.dumps({"inputs": [{"name": "numeric", "datatype": "FP32", "shape": [1, 64], "parameters": {"binary_data_size": 9}}]}).encode(),
    ]  # fmt: skip
    while not stop.is_set():
        kind = chance.choice(_KINDS)
        if kind == "noise":
            data = os.urandom(chance.randrange(1, 2000))
        elif kind == "forged":
            data = encode_request(chance.choice(_PATHS), b"{}", token=_FORGED)
        elif kind == "foreign":
            data = encode_request(f"/nowhere/{chance.random()}", b"{}", token=token)
        else:
            data = encode_request(chance.choice(_PATHS), chance.choice(bodies), token=token)
        try:
            with socket.create_connection((ours.host, ours.port), timeout=10) as stream:
                if chance.random() < _LEAVES:
                    stream.sendall(data[: chance.randrange(len(data))])
                    continue  # leaves in the middle
                stream.sendall(data)
                stream.shutdown(socket.SHUT_WR)
                reply = stream.recv(4096)
                if reply.startswith(b"HTTP/1.1 "):
                    statuses[reply[9:12].decode()] += 1
        except OSError:
            statuses["no reply"] += 1
        time.sleep(0.005)
