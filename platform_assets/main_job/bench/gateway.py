"""What the gateway costs a request, and what it answers to malformed ones: before a real Dagster web server, on loopback."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import httpx
import psutil

from platform_assets.errors import StateError
from platform_assets.main_job import site
from platform_assets.main_job.bench.core import describe_row, judge_row
from platform_assets.main_job.bench.malformed import ask_all, gateway_requests, malform
from resources.settings import Home, Settings, child_environment
from resources.sockets import short_path
from resources.tokens import mint_identity

if TYPE_CHECKING:
    from platform_assets.main_job.bench.core import Row

_QUERY = {"query": "query Version { version }", "operationName": "Version", "variables": {}}
_UP_SECONDS = 180.0
_PEOPLE = 50
_GOOD = 200


@dataclass(frozen=True)
class Pair:
    """A gateway and the web server behind it, as processes."""

    settings: Settings
    gateway: subprocess.Popen[bytes]

    @property
    def address(self) -> tuple[str, int]:
        """Where the gateway listens."""
        return "127.0.0.1", self.settings.web_port

    @property
    def memory_mb(self) -> float:
        """Resident memory of the gateway."""
        return psutil.Process(self.gateway.pid).memory_info().rss / 2**20

    def token(self, *roles: str, subject: str = "bench") -> str:
        """Return a token of this home."""
        return mint_identity(self.settings.home.keys, roles=roles, tenants=["*"], subject=subject, seconds=3600)

    def tokens(self) -> list[str]:
        """Return tokens of many people, so that no single one meets the limit of rates."""
        return [self.token("admin", subject=f"bench{number}") for number in range(_PEOPLE)]


@contextmanager
def run_pair(folder: Path) -> Iterator[Pair]:
    """Run both in this folder, on an empty workspace."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    settings = Settings(Home(folder), "laptop", folder / "defs", webhook_url=None, serve_port=0, web_port=port)
    site.prepare(settings)
    workspace = folder / "workspace.yaml"
    workspace.write_text("load_from: []\n")
    place, environment = settings.home.web_socket, child_environment(settings, FALAJ_WEB_PORT=str(port))
    commands = [["resources.dagster_instance.web", str(place), str(workspace)], ["platform_assets.gateway", f"*={place}"]]
    started = [
        subprocess.Popen([sys.executable, "-m", *command], env=environment, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for command in commands
    ]
    try:
        _wait(port)
        yield Pair(settings, started[1])
    finally:
        for process in started:
            process.terminate()
        for process in started:
            process.wait(20)


def _wait(port: int) -> None:
    until = time.monotonic() + _UP_SECONDS
    while time.monotonic() < until:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=5) as reply:
                if reply.status == _GOOD:
                    return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise StateError(f"the gateway did not come up within {_UP_SECONDS:.0f} s")


def measure_gateway(*, quick: bool) -> list[Row]:
    """Ask the same query directly and through the gateway in turn; then send malformed requests."""
    rounds, malformed = (200, 2000) if quick else (1000, 20_000)
    with tempfile.TemporaryDirectory() as name, run_pair(Path(name) / "home") as pair:
        direct, through = _ask_both(pair, rounds=rounds)
        good = gateway_requests(pair.tokens())
        ask_all(pair.address, malform(good, seed=1, count=500), secrets=[])  # what is allocated once is allocated now
        before = pair.memory_mb
        answers = ask_all(pair.address, malform(good, seed=os.getpid(), count=malformed), secrets=[])
        grown = pair.memory_mb - before
    return [
        judge_row("the gateway adds to a query, median", value=median(through) - median(direct), unit="ms", must=5, better="lower"),
        describe_row("the same query on Dagster's web server alone, median", value=median(direct), unit="ms"),
        judge_row(f"of {malformed} malformed requests, answered with 5xx", value=len(answers.failed), unit="", must=0, better="lower"),
        describe_row("the gateway's memory grew meanwhile by", value=grown, unit="MiB"),
    ]


def _ask_both(pair: Pair, *, rounds: int) -> tuple[list[float], list[float]]:
    """Return milliseconds of each request, direct and through the gateway, asked in turn over kept connections."""
    transport = httpx.HTTPTransport(uds=short_path(pair.settings.home.web_socket))
    headers = {"Authorization": f"Bearer {pair.token('viewer')}"}
    found: tuple[list[float], list[float]] = ([], [])
    with (
        httpx.Client(transport=transport, base_url="http://dagster", timeout=30) as direct,
        httpx.Client(base_url="http://{}:{}".format(*pair.address), headers=headers, timeout=30) as through,
    ):
        for _ in range(rounds):
            for client, times in zip((direct, through), found, strict=True):
                begun = time.perf_counter()
                client.post("/graphql", json=_QUERY).raise_for_status()
                times.append(1000 * (time.perf_counter() - begun))
                time.sleep(0.01)  # a rate that a person's page asks at, below the gateway's limit
    return found
