"""A team's servers on loopback, started, stopped and started again: PostgreSQL, Redis, and a store that can be told to fail."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Literal

from platform_assets.errors import FalajError
from platform_assets.specs.team import StoreSpec
from resources.s3 import S3

_PATIENCE_SECONDS = 60.0
Mood = Literal["ok", "500", "slow"]


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


class Postgres:
    """A server with a fresh database, without fsync. It refuses to run as root, and then runs as the user postgres."""

    def __init__(self) -> None:
        self._programs = _postgres_programs()
        self.folder = Path(tempfile.mkdtemp(prefix="falaj-postgres-"))
        self.port = free_port()
        self.url = f"postgresql://falaj@127.0.0.1:{self.port}/postgres"
        self._root = os.geteuid() == 0
        if self._root:
            shutil.chown(self.folder, "postgres", "postgres")
        self._call("initdb", "-A", "trust", "-U", "falaj", "--no-sync", "-E", "UTF8")

    def start(self) -> None:
        """Start it and wait until it answers."""
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c fsync=off -c unix_socket_directories={self.folder}"
        self._call("pg_ctl", "-o", options, "-l", str(self.folder / "log"), "-w", "start")

    def stop(self) -> None:
        """Stop it as a crash does: nobody is waited for."""
        self._call("pg_ctl", "-m", "immediate", "-w", "stop")

    def remove(self) -> None:
        """Stop it where it runs, and take its files away."""
        if (self.folder / "data" / "postmaster.pid").exists():
            self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _call(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [str(self._programs / program), "-D", str(self.folder / "data"), *arguments], check=True, cwd=self.folder,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=_PATIENCE_SECONDS,
            user="postgres" if self._root else None, group="postgres" if self._root else None, extra_groups=[] if self._root else None,
        )  # fmt: skip


class Redis:
    """A server that keeps an append-only file."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.folder.mkdir(parents=True)
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it listens."""
        program = _found("redis-server", package="redis-server")
        command = [program, "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder), "--save", "", "--appendonly", "yes"]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for_port(self.port)

    def stop(self) -> None:
        """Kill it."""
        _kill(self._process)

    def empty(self) -> None:
        """Take away what it keeps, while it is stopped."""
        shutil.rmtree(self.folder / "appendonlydir")


class Store:
    """moto's server, in a process of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port, self.url = folder, free_port(), "s3://falaj/team"
        self.folder.mkdir(parents=True)
        self.endpoint, self.credentials = f"http://127.0.0.1:{self.port}", folder / "credentials"
        self.credentials.write_text("[default]\naws_access_key_id = falaj\naws_secret_access_key = bench\n")
        self.credentials.chmod(0o600)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, wait until it listens, and make the bucket."""
        self.be("ok")
        command = [sys.executable, "-m", "platform_assets.main_job.bench.fault_store", str(self.port), str(self.folder / "mood")]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        wait_for_port(self.port)
        S3(StoreSpec(url=self.url, endpoint=self.endpoint, credentials=self.credentials)).client.create_bucket(Bucket="falaj")

    def be(self, mood: Mood) -> None:
        """Let it answer so from now on."""
        beside = self.folder / "mood.next"
        beside.write_text(mood)
        beside.replace(self.folder / "mood")

    def stop(self) -> None:
        """Kill it; it held everything in memory."""
        _kill(self._process)


def wait_for_port(port: int) -> None:
    """Wait until somebody listens there. FalajError where nobody comes."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise FalajError(f"nobody listens on port {port} after {_PATIENCE_SECONDS:.0f} s")


def _kill(process: subprocess.Popen[bytes] | None) -> None:
    if process is not None and process.poll() is None:
        process.send_signal(signal.SIGKILL)
        process.wait(_PATIENCE_SECONDS)


def _postgres_programs() -> Path:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    return found[-1].parent if found else Path(_found("initdb", package="postgresql")).parent


def _found(program: str, *, package: str) -> str:
    path = shutil.which(program)
    if path is None:
        raise FalajError(f"there is no {program} on this machine; install Debian's package {package}")
    return path
