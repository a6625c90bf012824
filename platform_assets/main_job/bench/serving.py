"""Area `serving`: CPU a request of the real server beside the practical limit in Python and, where they are installed, its peers.

The MLP 64-256-256-2; validation, figures, log and tokens on. CPU is user and system time of all processes of a server, the log's writing
included. All contestants are asked in turn by the same generator, several times over; medians are compared.
"""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from platform_assets.main_job.bench.core import Row, describe_row, interleave, judge_row
from platform_assets.main_job.bench.serving_peers import find_peers, missing_peers, running_peer
from platform_assets.main_job.bench.serving_setup import (
    Contestant,
    ask,
    binary_requests,
    column_requests,
    json_requests,
    raw_requests,
    running_anchor,
    running_falaj,
    write_release,
)

if TYPE_CHECKING:
    from rich.console import Console

OURS, SINGLE, COALESCING = "falaj", "raw asyncio", "coalescing raw asyncio"
_MUST_COALESCING = _MUST_SINGLE = 1.6
_MUST_BINARY = 1.3
_MUST_PEERS = {"mlserver": 1 / 20, "kserve": 1 / 20, "triton": 1 / 8}
_MUST_TAIL, _KEPT_UP = 4.0, 0.97
_WINDOW_SECONDS = 0.8
_BATCH = 32


def measure(*, quick: bool, console: Console) -> list[Row]:
    """Run all comparisons. Quick: fewer and shorter rounds, without the peers."""
    repeats, seconds = (2, 0.7) if quick else (5, 1.5)
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        console.print("serving, MLP 64-256-256-2, JSON and binary tensors over loopback ...")
        ours = stack.enter_context(running_falaj(folder))
        write_release(folder / "open", seed=1)  # the same graph, as the anchors read it
        model = folder / "open" / "model.onnx"
        anchors = {
            SINGLE: stack.enter_context(running_anchor("single", model)),
            COALESCING: stack.enter_context(running_anchor("coalescing", model)),
        }
        token = ours.token()
        compare = partial(_compare, repeats=repeats, seconds=seconds)
        rows: list[Row] = []
        for connections in (1, 16, 64):
            requests = {OURS: json_requests(1, token=token), SINGLE: json_requests(1), COALESCING: json_requests(1)}
            found = compare({OURS: ours, **anchors}, requests, connections=connections)
            rows += _judge_json(found, connections)
        named = compare({OURS: ours}, {OURS: column_requests(1, token=token)}, connections=64)
        rows.append(describe_row("named columns, one row, 64 connections, falaj", value=round(named[OURS], 1), unit="us CPU/request"))
        for connections in (1, 16):
            requests = {OURS: binary_requests(_BATCH, token=token), SINGLE: raw_requests(_BATCH)}
            found = compare({OURS: ours, SINGLE: anchors[SINGLE]}, requests, connections=connections)
            rows += _judge_binary(found, connections)
        rows += _measure_tail(ours, token, windows=3 if quick else 8)
        rows += [] if quick else _compare_peers(ours, model, token, folder, console)
    return rows


def _compare(
    servers: dict[str, Contestant], requests: dict[str, list[bytes]], *, connections: int, repeats: int, seconds: float
) -> dict[str, float]:
    def one(name: str) -> dict[str, float]:
        found = ask(servers[name], requests[name], connections=connections, seconds=seconds)
        _all_good(name, found)
        return {"cpu_us": found["cpu_us"]}

    for name, server in servers.items():
        ask(server, requests[name], connections=connections, seconds=0.3)
    return {name: found["cpu_us"] for name, found in interleave({name: partial(one, name) for name in servers}, repeats=repeats).items()}


def _all_good(name: str, found: dict[str, Any]) -> None:
    if set(found["statuses"]) != {"200"} or found["failures"]:
        raise AssertionError(f"{name} answered {found['statuses']} with {found['failures']} failures: its CPU time says nothing")


def _judge_json(found: dict[str, float], connections: int) -> list[Row]:
    what = f"JSON, one row, {connections} connection{'s' * (connections > 1)}"
    rows = [describe_row(f"{what}, {name}", value=round(value, 1), unit="us CPU/request") for name, value in found.items()]
    if connections == 1:
        ratio, must, against = found[OURS] / found[SINGLE], _MUST_SINGLE, SINGLE
    else:
        ratio, must, against = found[OURS] / found[COALESCING], _MUST_COALESCING, COALESCING
    if connections == 16:  # noqa: PLR2004 - told beside the two that are asked for
        return [*rows, {**describe_row(what, value=round(ratio, 2), unit="x CPU"), "against": against}]
    return [*rows, judge_row(what, value=round(ratio, 2), unit="x CPU", must=must, better="lower", against=against)]


def _judge_binary(found: dict[str, float], connections: int) -> list[Row]:
    what = f"binary tensors, {_BATCH} rows, {connections} connection{'s' * (connections > 1)}"
    rows = [describe_row(f"{what}, {name}", value=round(value, 1), unit="us CPU/request") for name, value in found.items()]
    ratio = round(found[OURS] / found[SINGLE], 2)
    return [*rows, judge_row(what, value=ratio, unit="x CPU", must=_MUST_BINARY, better="lower", against="bare onnxruntime, raw asyncio")]


def _measure_tail(ours: Contestant, token: str, *, windows: int) -> list[Row]:
    """Latency at 70 % of the highest load; the generator needs a core of its own for this to say something of the server.

    In windows below a second, medians of them: a kernel takes a twentieth of each second from whoever runs before all others (`chrt -r`).
    """
    requests = json_requests(1, token=token)
    ask(ours, requests, connections=64, seconds=0.3)
    highest = median(ask(ours, requests, connections=64, seconds=_WINDOW_SECONDS)["rate"] for _ in range(3))
    runs = [ask(ours, requests, connections=64, seconds=_WINDOW_SECONDS, rate=0.7 * highest) for _ in range(windows)]
    for run in runs:
        _all_good(OURS, run)
    found = {figure: median(run[figure] for run in runs) for figure in ("rate", "p50_ms", "p99_ms")}
    reached = found["rate"] / (0.7 * highest)
    tail = round(found["p99_ms"] / found["p50_ms"], 2)
    ratio = judge_row("p99 at 70 % of the highest load", value=tail, unit="x the median", must=_MUST_TAIL, better="lower")
    if reached < _KEPT_UP:  # what queues before the generator says nothing of the server
        ratio = {**ratio, "what": f"{ratio['what']}: not reached, the generator kept up with {reached:.0%}", "holds": False}
    return [
        describe_row("highest load, JSON, one row, 64 connections", value=round(highest), unit="requests/s"),
        describe_row("70 % of it: share that the generator kept up with", value=round(reached, 3), unit="share"),
        describe_row("70 % of it: median", value=round(found["p50_ms"], 3), unit="ms"),
        describe_row("70 % of it: p99", value=round(found["p99_ms"], 3), unit="ms"),
        ratio,
    ]


def _compare_peers(ours: Contestant, model: Path, token: str, folder: Path, console: Console) -> list[Row]:
    rows: list[Row] = []
    for name, why in missing_peers().items():
        console.print(f"{name} was not compared: {why}")
    for name, peer in find_peers().items():
        with running_peer(peer, model, folder / name) as server:
            requests = {OURS: json_requests(1, token=token), name: json_requests(1, path=peer.path)}
            for connections in (1, 64):
                found = _compare({OURS: ours, name: server}, requests, connections=connections, repeats=3, seconds=2.0)
                what = f"JSON, one row, {connections} connection{'s' * (connections > 1)}, {peer.title}"
                rows.append(describe_row(what, value=round(found[name], 1), unit="us CPU/request"))
                if (must := _MUST_PEERS.get(name)) is not None:
                    ratio = round(found[OURS] / found[name], 4)
                    rows.append(judge_row(what, value=ratio, unit="x CPU, falaj", must=must, better="lower", against=peer.title))
    return rows
