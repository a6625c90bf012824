"""The server as a process: bind, restore, announce, serve, drain. The command line is __main__.py."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import gc
import json
import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

import uvloop

from platform_assets.errors import ServingError
from platform_assets.stages.serving.access import Gate, read_public_key
from platform_assets.stages.serving.admin import Admin
from platform_assets.stages.serving.app import App
from platform_assets.stages.serving.batching import Batcher
from platform_assets.stages.serving.http import Connection, HttpServer
from platform_assets.stages.serving.lookup import Lookup
from platform_assets.stages.serving.online import OnlineReader
from platform_assets.stages.serving.prediction_log import PredictionLog
from platform_assets.stages.serving.replies import refuse
from platform_assets.stages.serving.shadow import Shadow

DRAIN_SECONDS = 8.0  # below the ten seconds after which the starter kills
_BACKLOG = 1024
_SWITCH_SECONDS = 0.0005  # log and shadow threads give way to the loop after this; Python's 5 ms would stand in every p99
# First not ready, then no new connections, then `Connection: close`: told to close first, callers would come back into a closing door.
_LAST_CALLS_SECONDS = 0.1


@dataclass(frozen=True)
class ServerConfig:
    """Where the server lives and listens."""

    serving: Path
    host: str = "127.0.0.1"
    port: int = 0
    keys: Path | None = None
    online: Path | None = None
    ready_file: Path | None = None


def run_server(config: ServerConfig) -> None:
    """Serve until SIGTERM or SIGINT; whatever was accepted is answered first."""
    config.serving.mkdir(parents=True, exist_ok=True)
    with _held(config.serving / "lock"), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(config))


async def _serve(config: ServerConfig) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    listening = _bind(config.host, config.port)
    gate = Gate(read_public_key(config.keys), tokens_required=not _is_loopback(config.host))
    log, shadow = PredictionLog(config.serving / "log"), Shadow()
    reader = OnlineReader(config.online) if config.online is not None else None
    app = App(gate=gate, batcher=Batcher(loop), log=log, lookup=Lookup(reader), shadow=shadow)
    app.admin = Admin(app, serving=config.serving)
    app.admin.restore()
    http = HttpServer(app.handle, refuse)
    app.replies, app.count_connections = http.replies, lambda: len(http.connections)
    # What is loaded stays: the collector need not look at it again on every pass.
    gc.collect()
    gc.freeze()
    sys.setswitchinterval(_SWITCH_SECONDS)
    server = await loop.create_server(lambda: Connection(http), sock=listening, backlog=_BACKLOG)
    house = loop.create_task(http.keep_house())
    app.ready = True
    _announce(config.ready_file, host=config.host, port=listening.getsockname()[1])
    await stop.wait()
    app.ready = False
    await asyncio.sleep(_LAST_CALLS_SECONDS)
    server.close()
    await http.drain(DRAIN_SECONDS)
    house.cancel()
    shadow.stop()
    await asyncio.to_thread(log.stop)
    if config.ready_file is not None:
        config.ready_file.unlink(missing_ok=True)


def _bind(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
    except OSError as error:
        raise ServingError(f"cannot listen on {host}:{port}: {error.strerror}; choose another with FALAJ_SERVE_PORT or --port") from error
    listening.setblocking(False)
    return listening


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _announce(file: Path | None, *, host: str, port: int) -> None:
    if file is None:
        return
    reachable = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared, not bound
    url = f"http://[{reachable}]:{port}" if ":" in reachable else f"http://{reachable}:{port}"
    file.parent.mkdir(parents=True, exist_ok=True)
    beside = file.with_suffix(".tmp")
    beside.write_text(json.dumps({"pid": os.getpid(), "url": url}))
    beside.replace(file)


@contextmanager
def _held(file: Path) -> Iterator[None]:
    """One server a folder: two would write the same log and state."""
    with file.open("a+") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            stream.seek(0)
            raise ServingError(
                f"{file.parent} is served already by process {stream.read().strip() or 'unknown'}; stop that one first"
            ) from error
        stream.truncate(0)
        stream.write(str(os.getpid()))
        stream.flush()
        with contextlib.suppress(KeyboardInterrupt):
            yield
