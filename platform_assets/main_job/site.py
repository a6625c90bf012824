"""What runs beside the main job and under `falaj up`: daemon, web server, gateway, inference server. Starting and stopping only."""

from __future__ import annotations

import getpass
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from platform_assets.errors import StateError
from platform_assets.identity.doors import MLFLOW as MLFLOW_PATH
from platform_assets.identity.principal import EVERY_TENANT
from resources import processes
from resources.certificates import LOCAL, client_context
from resources.home import prepare_home
from resources.parts import instance_config
from resources.senders import read_senders
from resources.serving import server_command, server_is_up
from resources.settings import CHECKOUT, Home, Settings, child_environment
from resources.team import ask_servers
from resources.tokens import leave_ticket

DAEMON, GATEWAY, WEB, MLFLOW, SERVER, CERTIFICATES = "daemon", "gateway", "web", "mlflow", "server", "certificates"
_WORKSPACE = CHECKOUT / "workspace.yaml"
_UP_SECONDS = 90.0
_LINK_SECONDS = 3600


def prepare(settings: Settings) -> None:
    """Make the home ready, and see that settings files are right and a team's servers answer; repeatable."""
    if settings.senders is not None:
        read_senders(settings.senders)
    if settings.team is not None and settings.team_file is not None:
        ask_servers(settings.team, settings.team_file)
    prepare_home(settings.home, instance_config(settings))
    client_context(settings)


def start_daemon(settings: Settings, *, tied: bool) -> None:
    """Start Dagster's daemon (sensors, schedules, queue) unless it runs."""
    _start(settings, DAEMON, [sys.executable, "-m", "resources.dagster_instance.daemon", "run", "-w", str(_WORKSPACE)], tied=tied)


def start_web(settings: Settings, tenants: Sequence[Settings] = (), *, mlflow: bool = False) -> str:
    """Start Dagster's web server on a socket, one a tenant where there are any, and the gateway before them on loopback.

    `mlflow`: MLflow's server beside each, under `/mlflow/`. Returns the address once all answer. StateError where the gateway runs already,
    before others.
    """
    address = f"http://127.0.0.1:{settings.web_port}"
    command = [sys.executable, "-m", "platform_assets.gateway"]
    for one in tenants or (settings,):
        name = one.tenant or EVERY_TENANT
        command += [f"{name}={one.home.web_socket}", *([f"{name}{MLFLOW_PATH}={one.home.mlflow_socket}"] if mlflow else [])]
    if (found := processes.running(settings.home, GATEWAY)) and processes.command_of(found)[1:] != command[1:]:
        raise StateError(f"{settings.home.root} has a gateway before other web servers; `falaj down` stops it, then start it anew")
    for one in tenants or (settings,):
        place, prefix = str(one.home.web_socket), [f"/{one.tenant}"] if one.tenant else []
        _start(one, WEB, [sys.executable, "-m", "resources.dagster_instance.web", place, str(_WORKSPACE), *prefix], tied=False)
        if mlflow:
            place, shown = str(one.home.mlflow_socket), "".join(prefix) + MLFLOW_PATH
            _start(one, MLFLOW, [sys.executable, "-m", "resources.mlflow_server", place, shown], tied=False)
    _start(settings, GATEWAY, command, tied=False)
    logs = f"{settings.home.logs / WEB}.log and {settings.home.logs / GATEWAY}.log"
    processes.wait_until(
        lambda: _answers(f"{address}/healthz"), seconds=_UP_SECONDS, what="The web UI", log=logs,
        alive=lambda: processes.running(settings.home, GATEWAY) is not None,
    )  # fmt: skip
    return settings.identity.web_url or address


def login_link(settings: Settings, address: str) -> str:
    """Return where to click: a link that logs in whoever holds this home, once; the bare address where an issuer says who somebody is."""
    if settings.identity.issuer:
        return address
    code = leave_ticket(settings.home.keys, roles=["admin"], tenants=[EVERY_TENANT], subject=getpass.getuser(), seconds=_LINK_SECONDS)
    return f"{address}/auth/ticket?t={code}"


def start_server(settings: Settings, *, tied: bool) -> None:
    """Start the inference server on loopback unless it runs, and wait until it answers; beside it what renews its certificates."""
    keep_certificates(settings, tied=tied)
    _start(settings, SERVER, server_command(settings), tied=tied)
    processes.wait_until(
        lambda: server_is_up(settings), seconds=_UP_SECONDS, what="The inference server", log=settings.home.logs / f"{SERVER}.log",
        alive=lambda: processes.running(settings.home, SERVER) is not None,
    )  # fmt: skip


def keep_certificates(settings: Settings, *, tied: bool) -> None:
    """Start what renews this home's certificates of services, where it has such ones, unless it runs."""
    if settings.mtls == LOCAL:
        _start(settings, CERTIFICATES, [sys.executable, "-m", "resources.certificates", str(settings.home.keys)], tied=tied)


def stop_all(settings: Settings) -> list[str]:
    """Stop what runs in this home and in its tenants' homes, the daemons first so that they start nothing new; return the names."""
    homes = [settings.home, *(Home(folder) for folder in sorted(settings.home.tenants.glob("*")))]
    names = ((name, home) for name in (DAEMON, GATEWAY, WEB, MLFLOW, SERVER, CERTIFICATES) for home in homes)
    return [name if home is settings.home else f"{name} of {home.root.name}" for name, home in names if processes.stop(home, name)]


@contextmanager
def beside(settings: Settings) -> Iterator[None]:
    """Have daemon and inference server for as long as the block runs; those that `falaj up` started stay."""
    ours = (DAEMON, SERVER, CERTIFICATES)
    had = {name for name in ours if processes.running(settings.home, name)}
    try:  # around the start too: Ctrl-C may come while they come up
        start_daemon(settings, tied=True)
        start_server(settings, tied=True)
        yield
    finally:
        for name in ours:
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
