"""Area `serving`, the rest: swaps under full load, the cost of starting, memory, and the size of the serving environment."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path
from typing import TYPE_CHECKING, Any

from platform_assets.errors import FalajError
from platform_assets.main_job.bench.core import Row, describe_row, judge_row
from platform_assets.main_job.bench.serving_setup import MODEL, Falaj, finish_load, json_requests, running_falaj, start_load
from resources.settings import CHECKOUT

if TYPE_CHECKING:
    from rich.console import Console

_MUST_START_SECONDS = 1.0
_MUST_RESIDENT_MB = 120.0
_MUST_ENVIRONMENT_MB = 250.0
_FLAT = 1.05  # memory may grow by a twentieth: allocators keep what a peak needed
_SWAPS, _QUICK_SWAPS = 200, 40
_SWAP_SECONDS = 0.12  # what one takes with its questions, generously: the load must outlast them
_VERSION = '"model_version":"'


def measure(*, quick: bool, console: Console) -> list[Row]:
    """Swap, start, weigh. Quick: fewer swaps; the environment is not made."""
    rows: list[Row] = []
    for workers in (1, 2):
        console.print(f"serving, swaps under full load, {workers} worker{'s' * (workers > 1)} ...")
        with tempfile.TemporaryDirectory() as name, running_falaj(Path(name), "--workers", str(workers)) as ours:
            if workers == 1:
                rows += _weigh(ours)
            rows += _swap(ours, count=_QUICK_SWAPS if quick else _SWAPS, workers=workers)
    if not quick:
        rows += _measure_environment(console)
    return rows


def _weigh(ours: Falaj) -> list[Row]:
    """Memory and CPU up to the first answers, one small model loaded."""
    spent = ours.cpu_seconds()
    _load(ours, seconds=1.0)
    return [
        judge_row("CPU to start and to load a first release", value=round(spent, 2), unit="s", must=_MUST_START_SECONDS, better="lower"),
        judge_row(
            "resident memory, one small model, after a second of full load", value=round(ours.resident_bytes() / 1e6, 1), unit="MB",
            must=_MUST_RESIDENT_MB, better="lower",
        ),
    ]  # fmt: skip


def _load(ours: Falaj, *, seconds: float) -> dict[str, Any]:
    return finish_load(start_load(_order(ours, seconds)))


def _order(ours: Falaj, seconds: float) -> dict[str, Any]:
    requests = [request.hex() for request in json_requests(1, token=ours.token())]
    return {"host": ours.host, "port": ours.port, "connections": 64, "seconds": seconds, "requests": requests, "version_field": _VERSION}


def _memory_mb(ours: Falaj) -> float:
    return ours.own_bytes() / 1e6


def _swap(ours: Falaj, *, count: int, workers: int) -> list[Row]:
    """Swap between two versions under full load; after each swap ask who answers."""
    target, digests = ours.target, [str(ours.target.status(MODEL)["live"]), ours.releases.make(2)]
    target.load(MODEL, digests[1])
    _load(ours, seconds=2.0)
    before, wrong = _memory_mb(ours), 0
    generator = start_load(_order(ours, count * _SWAP_SECONDS))
    time.sleep(0.3)
    done = 0
    for at in range(count):
        live = digests[(at + 1) % 2]
        target.set_traffic(MODEL, live=live)
        wrong += sum(version != live[:12] for version in _asked_anew(ours))
        done += generator.poll() is None
    found = finish_load(generator)
    known = {digest[:12] for digest in digests}
    foreign = sum(number for version, number in found["versions"].items() if version not in known)
    failed = found["failures"] + sum(number for status, number in found["statuses"].items() if status != "200")
    grown = _memory_mb(ours) / before
    what = f"{count} swaps, {workers} worker{'s' * (workers > 1)}"
    return [
        describe_row(f"{what}: of them under load", value=done, unit="swaps"),
        describe_row(f"{what}: requests beside them", value=found["requests"], unit="requests"),
        judge_row(f"{what}: failed requests", value=failed, unit="requests", must=0, better="lower"),
        judge_row(f"{what}: answers by a wrong version", value=wrong + foreign, unit="requests", must=0, better="lower"),
        judge_row(f"{what}: memory after against before", value=round(grown, 3), unit="x", must=_FLAT, better="lower"),
    ]


def _asked_anew(ours: Falaj) -> list[str]:
    """Versions that answer now, over new connections: with several workers the kernel deals these out."""
    from resources.serving import PredictClient

    body = {"inputs": [{"name": "numeric", "datatype": "FP32", "shape": [1, 64], "data": [0.5] * 64}]}
    found = []
    for _ in range(3):
        with PredictClient(f"http://{ours.host}:{ours.port}", token=ours.token()) as client:
            found.append(client.request("POST", f"/v2/models/{MODEL}/infer", body)["model_version"])
    return found


def _measure_environment(console: Console) -> list[Row]:
    """Make an environment with the `serve` extra's packages alone, and weigh it; needs a package index."""
    console.print("serving, an environment of its own ...")
    import tomllib

    packages = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["serve"]
    with tempfile.TemporaryDirectory() as name:
        place = Path(name) / "serve"
        venv.create(place, with_pip=False)
        command = [sys.executable, "-m", "pip", "--python", str(place / "bin" / "python"), "install", "-q", *packages]
        done = subprocess.run([*command, "--constraint", str(CHECKOUT / "constraints.txt")], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            reason = done.stderr.strip().splitlines()[-1]
            console.print(f"the serving environment was not made: {reason}")
            return [describe_row("size of the serving environment: not measured, no package index", value=0, unit="MB")]
        server = [str(place / "bin" / "python"), "-m", "platform_assets.stages.serving", "--help"]
        started = subprocess.run(server, cwd=CHECKOUT, capture_output=True, text=True, check=False)
        if started.returncode != 0:
            raise FalajError(f"bench serving: the server does not start in its own environment: {started.stderr[-400:]}")
        size = sum(file.stat().st_size for file in place.rglob("*") if file.is_file() and not file.is_symlink())
    must = _MUST_ENVIRONMENT_MB
    return [
        judge_row(
            "size of the serving environment, packages of the extra `serve`", value=round(size / 1e6), unit="MB", must=must, better="lower"
        )
    ]
