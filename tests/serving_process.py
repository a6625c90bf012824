"""A real server process on loopback with tiny releases, for the tests of the serving room and of its port."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from resources.serving import LocalServing, PredictClient, connect, find_server, server_command
from resources.settings import Home, Settings, child_environment
from resources.testing.keys import open_releases
from resources.testing.serving import write_tiny_release
from resources.tokens import mint

MODEL = "tiny"


class Releases:
    """A release store of tiny releases."""

    def __init__(self, home: Home) -> None:
        self.store = open_releases(home)

    def make(self, seed: int, **how: float) -> str:
        with tempfile.TemporaryDirectory() as beside:
            folder = Path(beside) / "release"
            write_tiny_release(folder, model=MODEL, seed=seed, **how)
            return self.store.put(folder)

    def path(self, digest: str) -> Path:
        return self.store.path(digest)


class Server:
    """One server process and the ways to talk to it."""

    def __init__(self, root: Path) -> None:
        self.settings = Settings(home=Home(root / "home"), environment="laptop", defs_root=root, webhook_url=None, serve_port=0, web_port=0)
        self.releases = Releases(self.settings.home)
        self.target = LocalServing(self.settings, self.releases)
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *extra: str) -> None:
        self.settings.home.root.mkdir(parents=True, exist_ok=True)
        command = [*server_command(self.settings, port=0), *extra]
        self.process = subprocess.Popen(command, env=child_environment(self.settings), stderr=subprocess.PIPE)
        until = time.monotonic() + 30
        while (found := find_server(self.settings.home)) is None or found.pid != self.process.pid:
            assert self.process.poll() is None, self.process.stderr.read().decode()
            assert time.monotonic() < until
            time.sleep(0.02)

    @property
    def url(self) -> str:
        return find_server(self.settings.home).url

    @property
    def address(self) -> tuple[str, int]:
        host, port = self.url.removeprefix("http://").split(":")
        return host, int(port)

    def client(self, *scopes: str) -> PredictClient:
        return connect(self.settings, token=self.token(*scopes) if scopes else None)

    def token(self, *scopes: str, **how: object) -> str:
        return mint(self.settings.home.keys, scopes=scopes, **how)

    def deploy(self, seed: int = 1) -> str:
        digest = self.releases.make(seed)
        self.target.load(MODEL, digest)
        self.target.set_traffic(MODEL, live=digest)
        return digest

    def kill(self, number: int = signal.SIGKILL) -> str:
        """End it; return what it wrote to standard error."""
        if self.process.poll() is None:
            os.kill(self.process.pid, number)
        return self.process.communicate(timeout=30)[1].decode()
