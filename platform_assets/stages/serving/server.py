"""The server as a process: bind, announce, one process or several. What a process does is worker.py, the command line __main__.py."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from dataclasses import replace
from functools import partial
from ipaddress import ip_address

import uvloop

from platform_assets.errors import ServingError
from platform_assets.stages.serving.held import held
from platform_assets.stages.serving.prediction_log import close_left_overs
from platform_assets.stages.serving.supervisor import Supervisor
from platform_assets.stages.serving.tls import tls_context
from platform_assets.stages.serving.worker import ServerConfig, serve_alone


def run_server(config: ServerConfig) -> None:
    """Serve until SIGTERM or SIGINT; whatever was accepted is answered first."""
    certified = config.tls is not None and config.tls.services is not None  # then being on this machine says nothing
    config = replace(config, tokens_required=certified or not _is_loopback(config.host))
    tls_context(config.tls)  # before anything starts
    config.issuer()
    config.serving.mkdir(parents=True, exist_ok=True)
    with held(config.serving):
        (config.serving / "log").mkdir(exist_ok=True)
        close_left_overs(config.serving / "log")
        sockets = _bind(config.host, config.port, config.workers)
        announce = partial(_announce, config, port=sockets[0].getsockname()[1])
        if config.workers == 1:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(serve_alone(config, sockets[0], announce))
        else:
            Supervisor(config, sockets).run(announce)
        if config.ready_file is not None:
            config.ready_file.unlink(missing_ok=True)


def _bind(host: str, port: int, count: int) -> list[socket.socket]:
    """One socket a worker, all on one port: the kernel deals callers out to them."""
    found: list[socket.socket] = []
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        with socket.socket(family, kind, protocol) as probe:  # sharing a port would hide that another server has it
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            address = probe.getsockname()
        for _ in range(count):
            listening = socket.socket(family, kind, protocol)
            found.append(listening)
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if count > 1:
                listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            listening.bind(address)
            listening.setblocking(False)
    except OSError as error:
        raise ServingError(f"cannot listen on {host}:{port}: {error.strerror}; choose another with FALAJ_SERVE_PORT or --port") from error
    return found


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _announce(config: ServerConfig, *, port: int) -> None:
    file = config.ready_file
    if file is None:
        return
    reachable = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(config.host, config.host)  # noqa: S104 - compared, not bound
    place = f"[{reachable}]:{port}" if ":" in reachable else f"{reachable}:{port}"
    file.parent.mkdir(parents=True, exist_ok=True)
    beside = file.with_suffix(".tmp")
    beside.write_text(json.dumps({"pid": os.getpid(), "url": f"http{'s' if config.tls else ''}://{place}"}))
    beside.replace(file)
