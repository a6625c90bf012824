"""Servers that others run, each in an environment of its own made by `tests/bench/make_peers.py`; the programs lie beside that script."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from platform_assets.errors import FalajError
from platform_assets.main_job.bench.serving_setup import MODEL, Contestant, ask, json_requests
from resources.settings import CHECKOUT

PEERS_FOLDER = CHECKOUT / ".bench-peers"
_PROGRAMS = CHECKOUT / "tests" / "bench" / "peers"
_TITLES = {
    "fastapi": "FastAPI, tuned",
    "mlserver": "MLServer, in process",
    "kserve": "KServe ModelServer",
    "triton": "Triton through pytriton",
}
_UP_SECONDS = 120.0


@dataclass(frozen=True)
class Peer:
    """A server to compare with. `path` is where it is asked for a prediction."""

    name: str
    title: str
    python: Path
    path: str = f"/v2/models/{MODEL}/infer"


def find_peers() -> dict[str, Peer]:
    """Peers whose environment stands."""
    found = {name: PEERS_FOLDER / name for name in _TITLES if (PEERS_FOLDER / name / "installed").exists()}
    return {name: Peer(name, _TITLES[name], place / "bin" / "python") for name, place in found.items()}


def missing_peers() -> dict[str, str]:
    """Why each other one is not there."""
    found = {}
    for name in _TITLES:
        place = PEERS_FOLDER / name
        if not (place / "installed").exists():
            reason = (place / "failed").read_text() if (place / "failed").exists() else "tests/bench/make_peers.py was not run"
            found[name] = reason
    return found


@contextmanager
def running_peer(peer: Peer, model: Path, folder: Path) -> Iterator[Contestant]:
    """Run a peer until the block ends; FalajError where it does not answer."""
    folder.mkdir()
    port = _free_port()
    output = folder / "output"
    with output.open("wb") as stream:
        process = subprocess.Popen(
            [peer.python, _PROGRAMS / f"{peer.name}_server.py", model, str(port)],
            cwd=folder, stdout=stream, stderr=stream, start_new_session=True, env={"PATH": os.defpath, "HOME": str(folder)},
        )  # fmt: skip
    try:
        server = Contestant(process, "127.0.0.1", port)
        until = time.monotonic() + _UP_SECONDS
        while not _answers(server, peer):
            if process.poll() is not None or time.monotonic() > until:
                raise FalajError(f"bench serving: {peer.title} does not answer: {output.read_text(errors='replace')[-600:]}")
            time.sleep(0.5)
        yield server
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _answers(server: Contestant, peer: Peer) -> bool:
    try:
        socket.create_connection((server.host, server.port), timeout=1).close()
        found = ask(server, json_requests(1, path=peer.path), connections=1, seconds=0.2)
    except (OSError, FalajError):
        return False
    return set(found["statuses"]) == {"200"}


def _free_port() -> int:
    """Return a port with two free ones after it, as some peers take three."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return min(int(probe.getsockname()[1]), 65000)
