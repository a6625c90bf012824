"""What runs beside the main job and under `falaj up`: daemon, web server, inference server. Starting and stopping only."""

from __future__ import annotations

import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

from resources import processes
from resources.home import prepare_home
from resources.serving import server_command, server_is_up
from resources.settings import CHECKOUT, Settings, child_environment

DAEMON, WEB, SERVER = "daemon", "web", "server"
_WORKSPACE = CHECKOUT / "workspace.yaml"
_UP_SECONDS = 90.0


def prepare(settings: Settings) -> None:
    """Make the home ready; repeatable."""
    prepare_home(settings.home, CHECKOUT / "infra" / "dagster" / f"{settings.environment}.yaml")


def start_daemon(settings: Settings, *, tied: bool) -> None:
    """Start Dagster's daemon (sensors, schedules, queue) unless it runs."""
    _start(settings, DAEMON, [sys.executable, "-m", "resources.dagster_instance.daemon", "run", "-w", str(_WORKSPACE)], tied=tied)


def start_web(settings: Settings) -> str:
    """Start Dagster's web server on loopback unless it runs; return its address once it answers."""
    address = f"http://127.0.0.1:{settings.web_port}"
    command = [sys.executable, "-m", "dagster_webserver", "-w", str(_WORKSPACE), "-h", "127.0.0.1", "-p", str(settings.web_port)]
    _start(settings, WEB, command, tied=False)
    processes.wait_until(
        lambda: _answers(f"{address}/server_info"), seconds=_UP_SECONDS, what="The web server", log=settings.home.logs / f"{WEB}.log"
    )
    return address


def start_server(settings: Settings, *, tied: bool) -> None:
    """Start the inference server on loopback unless it runs, and wait until it answers."""
    _start(settings, SERVER, server_command(settings), tied=tied)
    processes.wait_until(
        lambda: server_is_up(settings), seconds=_UP_SECONDS, what="The inference server", log=settings.home.logs / f"{SERVER}.log"
    )


def stop_all(settings: Settings) -> list[str]:
    """Stop what runs in this home, the daemon first so that it starts nothing new; return the names."""
    return [name for name in (DAEMON, WEB, SERVER) if processes.stop(settings.home, name)]


@contextmanager
def beside(settings: Settings) -> Iterator[None]:
    """Have daemon and inference server for as long as the block runs; those that `falaj up` started stay."""
    had = {name for name in (DAEMON, SERVER) if processes.running(settings.home, name)}
    try:  # around the start too: Ctrl-C may come while they come up
        start_daemon(settings, tied=True)
        start_server(settings, tied=True)
        yield
    finally:
        for name in (DAEMON, SERVER):
            if name not in had:
                processes.stop(settings.home, name)


def _start(settings: Settings, name: str, command: list[str], *, tied: bool) -> None:
    if processes.running(settings.home, name) is None:
        environment = child_environment(settings, **({"FALAJ_TIED": "1"} if tied else {}))
        processes.start(settings.home, name, command, environment=environment, tied=tied)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as reply:  # noqa: S310 - our own loopback address
            return bool(reply.status == 200)  # noqa: PLR2004
    except (urllib.error.URLError, OSError):
        return False
