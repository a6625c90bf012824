"""One home with the tiny declarations: run the command in it as a real process, look into it, end what is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import psutil

from platform_assets.definitions import build_defs
from platform_assets.specs.catalogue import load_catalogue
from resources.parts import Parts, build_parts
from resources.settings import Home, Settings

DEFS = Path(__file__).parent / "defs"
MODEL, DATASET = "tiny_cancellations", "tiny_bookings"
HISTORY_ROWS = LIVE_ROWS = 1500
PATIENCE_SECONDS = 300
# Secrets that must be written nowhere: in the environment, as other programs leave them there, and in files that settings name.
CANARIES = {name: f"canary-{name.lower()}-5f1d9c" for name in ("AWS_SECRET_ACCESS_KEY", "DATABASE_PASSWORD", "GITHUB_TOKEN")}
SECRET_FILES = ("FALAJ_OIDC_CLIENT_SECRET_FILE", "FALAJ_WEBHOOK_SECRET_FILE", "FALAJ_SMTP_PASSWORD_FILE")
FILED = "canary-in-a-file-77ab02"


class TinyHome:
    """A FALAJ_HOME of a test, and every process in it."""

    def __init__(self, root: Path, *, defs: Path = DEFS, webhook_url: str | None = None, web_port: int = 0, traces: str = "") -> None:
        self.home, self.traces = Home(root), traces
        self.secret_file.parent.mkdir(parents=True, exist_ok=True)
        self.secret_file.write_text(FILED)
        self.settings = Settings(
            home=self.home, environment="laptop", defs_root=defs, webhook_url=webhook_url, serve_port=0, web_port=web_port
        )

    @property
    def environment(self) -> dict[str, str]:
        ours = {"FALAJ_HOME": str(self.home.root), "FALAJ_DEFS": str(self.settings.defs_root), "FALAJ_SERVE_PORT": "0"}
        more = {"FALAJ_WEB_PORT": str(self.settings.web_port), "FALAJ_WEBHOOK_URL": self.settings.webhook_url or ""}
        more |= {"FALAJ_TRACES": self.traces, "FALAJ_TRACES_SHARE": "0.1"}
        return {**os.environ, **ours, **more, **CANARIES, **dict.fromkeys(SECRET_FILES, str(self.secret_file))}

    @property
    def secret_file(self) -> Path:
        """Beside the home, where a home does not hold it."""
        return self.home.root.with_name("secret")

    @property
    def parts(self) -> Parts:
        return build_parts(self.settings, load_catalogue(self.settings.defs_root))

    def repository(self) -> dg.RepositoryDefinition:
        return build_defs(self.parts).get_repository_def()

    @contextmanager
    def instance(self) -> Iterator[dg.DagsterInstance]:
        with dg.DagsterInstance.from_config(str(self.home.instance)) as instance:
            yield instance

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start `falaj ...`; signals reach it as they would from a terminal of its own."""
        return subprocess.Popen(
            [sys.executable, "-m", "platform_assets.cli", *arguments], env=self.environment, text=True, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - no lock is taken there
        )  # fmt: skip

    def falaj(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run `falaj ...` to its end; what it prints stands in `stdout`."""
        process = self.start(*arguments)
        try:
            out, _ = process.communicate(timeout=PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        return subprocess.CompletedProcess(process.args, process.returncode, out)

    def processes(self) -> list[psutil.Process]:
        """Every process of this home that is alive, whoever its parent is."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("FALAJ_HOME") == str(self.home.root) and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except (psutil.Error, OSError):
                continue
        return [process for process in found if process.pid != os.getpid()]

    def names(self) -> list[str]:
        """What runs in this home, as command lines."""
        return [" ".join(process.cmdline()[1:4]) for process in self.processes()]

    def end_everything(self) -> None:
        """End every process of this home, so that a failed test leaves nothing."""
        for process in self.processes():
            process.kill()
        psutil.wait_procs(self.processes(), timeout=10)


@dataclass(frozen=True)
class Finished:
    """A main job that ended, its home, and the spans of whatever is done in that home."""

    tiny: TinyHome
    answer: subprocess.CompletedProcess[str]
    result: dict[str, Any]
    left_running: list[str]
    spans: list[dict[str, Any]]


def wait_for(condition: Callable[[], object], *, seconds: float, what: str) -> None:
    """Poll until it holds; a wait that is over fails the test, naming what did not come."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come within {seconds:.0f} s"
        time.sleep(0.2)
