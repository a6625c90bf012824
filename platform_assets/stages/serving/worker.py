"""One serving process: it holds releases, listens, answers, drains. Alone it is the server; under a supervisor it takes its orders."""

from __future__ import annotations

import asyncio
import fcntl
import gc
import math
import mmap
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import uvloop

from platform_assets.sealing.keyring import KEYRING_FILE, Keyring
from platform_assets.sealing.release import Opener, Unwraps
from platform_assets.sealing.signature import PUBLIC_KEY_FILE
from platform_assets.stages.serving.access import Gate, read_public_key
from platform_assets.stages.serving.admin import Admin, AdminRoutes
from platform_assets.stages.serving.app import App
from platform_assets.stages.serving.aws import StoreReader
from platform_assets.stages.serving.batching import Batcher
from platform_assets.stages.serving.bundle import build_bundle
from platform_assets.stages.serving.fleet import Alone, export_figures, give_back_memory, rotate_log
from platform_assets.stages.serving.following import followed
from platform_assets.stages.serving.grpc_server import GrpcServer
from platform_assets.stages.serving.http import Connection, HttpServer
from platform_assets.stages.serving.incidents import Denials, Incidents
from platform_assets.stages.serving.links import Link
from platform_assets.stages.serving.lookup import Lookup, open_reader
from platform_assets.stages.serving.memory import Memory
from platform_assets.stages.serving.oidc import OidcIssuer
from platform_assets.stages.serving.places import Places
from platform_assets.stages.serving.prediction_log import PredictionLog
from platform_assets.stages.serving.replies import Unforeseen, refuse
from platform_assets.stages.serving.shadow import Shadow
from platform_assets.stages.serving.stored import StoreOpener
from platform_assets.stages.serving.tls import Door, TlsFiles
from platform_assets.stages.serving.traced import trace_answers
from platform_assets.stages.serving.traffic import Route, Traffic
from platform_assets.stages.serving.vault import Transit
from platform_assets.tracing import start_tracing, stop_tracing

DRAIN_SECONDS = 8.0  # below the ten seconds after which the starter kills
# First not ready, then no new connections, then `Connection: close`: told to close first, callers would come back into a closing door.
LAST_CALLS_SECONDS = 0.1
_SWITCH_SECONDS = 0.0005  # log and shadow threads give way to the loop after this; Python's 5 ms would stand in every p99


@dataclass(frozen=True)
class ServerConfig:
    """Where the server lives and listens."""

    serving: Path
    host: str = "127.0.0.1"
    port: int = 0
    keys: Path | None = None
    online: Path | None = None
    team: Places | None = None  # where newest values and releases are instead
    ready_file: Path | None = None
    workers: int = 1
    tokens_required: bool = False
    tls: TlsFiles | None = None
    oidc: tuple[str, str] | None = None  # an issuer whose tokens are taken beside our own, and the audience they must have
    traces: tuple[str, float] | None = None  # where spans are sent, and which share of predictions is
    grpc_port: int | None = None
    memory_bytes: int | None = None  # of models, a process; beyond it the least recently used are unloaded
    log_to_disk: bool = False  # the prediction log outlives a loss of power
    close_log_seconds: float = math.inf  # age at which a segment of it is closed
    follow: Path | None = None  # state file of another server whose live releases are served here, too

    def issuer(self) -> OidcIssuer | None:
        """The issuer beside our own; ServingError where it is no address."""
        return None if self.oidc is None else OidcIssuer(self.oidc[0], audience=self.oidc[1])

    def opener(self) -> Opener | None:
        """What opens releases; None where the server has no keys, and then none is served."""
        if self.keys is None:
            return None
        if self.team is None:
            return Opener.of(self.keys)
        store = None if self.team.store is None else StoreReader(self.team.store)
        keys: Unwraps = Keyring(self.keys / KEYRING_FILE)
        if self.team.vault is not None:
            keys = Transit(self.team.vault)
        elif store is not None and store.has_kms:
            keys = store
        public_key = self.keys / PUBLIC_KEY_FILE
        if store is None:
            return Opener(keys, public_key)
        return StoreOpener(keys, public_key, cache=self.serving / "releases", read=store.read, where=store.where)


class Process:
    """App, log, threads and connections of one process."""

    def __init__(self, config: ServerConfig, *, worker: int) -> None:
        self._config = config
        self._log = PredictionLog(config.serving / "log", worker=worker, to_disk=config.log_to_disk, close_seconds=config.close_log_seconds)
        self._shadow = Shadow()
        self._denials = Denials(Incidents(config.serving))
        oidc = config.issuer()
        if oidc is not None:
            oidc.start()
        certified = config.tls is not None and config.tls.services is not None
        gate = Gate(
            partial(read_public_key, config.keys), tokens_required=config.tokens_required, certified=certified, oidc=oidc,
            on_denied=self._denials.note,
        )  # fmt: skip
        memory, unforeseen = Memory(config.memory_bytes), Unforeseen()
        batcher = Batcher(asyncio.get_running_loop(), memory=memory, unforeseen=unforeseen)
        lookup = Lookup(open_reader(config.team.redis if config.team is not None else config.online))
        self.app = App(
            gate=gate, batcher=batcher, log=self._log, lookup=lookup, shadow=self._shadow, memory=memory, unforeseen=unforeseen,
        )  # fmt: skip
        tracer = start_tracing("server", config.traces[0], in_batches=True) if config.traces else None
        if config.traces is not None and tracer is not None:
            trace_answers(self.app.predictor, batcher, tracer, share=config.traces[1])
        self._http = HttpServer(self.app.handle, refuse)
        self.app.replies, self.app.count_connections = self._http.replies, lambda: len(self._http.connections)
        self._door: Door | None = None
        self._grpc: GrpcServer | None = None

    async def listen(self, listening: socket.socket) -> None:
        """Answer from now on."""
        # What is loaded stays: the collector need not look at it again on every pass.
        gc.collect()
        gc.freeze()
        sys.setswitchinterval(_SWITCH_SECONDS)
        loop = asyncio.get_running_loop()
        self._door = Door(
            listening, lambda: Connection(self._http), self._config.tls,
            on_refused=lambda why: self._denials.note(f"certificate: {why}"), on_distrust=self._http.distrust_services,
        )  # fmt: skip
        await self._door.open()
        if self._config.grpc_port is not None:
            self._grpc = GrpcServer(self.app, host=self._config.host, port=self._config.grpc_port, tls=self._config.tls)
            await self._grpc.start()
        self._house = [loop.create_task(self._http.keep_house()), loop.create_task(self._door.keep())]
        self.app.ready = True

    async def drain(self) -> None:
        """Answer what was accepted, then write the log."""
        self.app.ready = False
        if self._door is not None:
            await asyncio.sleep(LAST_CALLS_SECONDS)
            self._house[1].cancel()
            self._door.close()
            ending = [self._http.drain(DRAIN_SECONDS), *([self._grpc.stop(DRAIN_SECONDS)] if self._grpc is not None else [])]
            await asyncio.gather(*ending)
            self._house[0].cancel()
        self._shadow.stop()
        self._denials.tell()
        await asyncio.to_thread(self._log.stop)
        await asyncio.to_thread(stop_tracing)


async def serve_alone(config: ServerConfig, listening: socket.socket, announce: Callable[[], None]) -> None:
    """Be the whole server, until SIGTERM or SIGINT."""
    stop = _stop_event()
    process = Process(config, worker=0)
    admin = Admin(process.app.routes, Alone(process.app, opener=config.opener()), serving=config.serving)
    process.app.admin = AdminRoutes(admin.ask)
    await admin.restore()
    async with followed(admin, config.follow):
        await process.listen(listening)
        announce()
        await stop.wait()
    await process.drain()


def run_worker(config: ServerConfig, *, worker: int, core: int | None, end: socket.socket, listening: socket.socket) -> None:
    """Serve under a supervisor until it says so, or is gone."""
    if core is not None:
        os.sched_setaffinity(0, {core})
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve_as_told(config, worker=worker, end=end, listening=listening))


async def _serve_as_told(config: ServerConfig, *, worker: int, end: socket.socket, listening: socket.socket) -> None:
    stop = _stop_event()
    process = Process(config, worker=worker)
    routes = process.app.routes

    async def obey(order: dict[str, Any], files: list[int]) -> Any:
        verb, model = order["do"], order.get("model", "")
        if verb == "load":
            route = routes.setdefault(model, Route(model))
            if order["digest"] not in route.loaded:
                content = read_sealed(files[0])
                path = Path(order["path"])
                route.loaded[order["digest"]] = await asyncio.to_thread(
                    build_bundle, content, path=path, model=model, digest=order["digest"], opener=config.opener()
                )
                route.unload_spare()
        elif verb == "apply":
            routes[model].apply(Traffic(**order["traffic"]))
            routes[model].fault, routes[model].traces = order["fault"], order["traces"]
            await asyncio.to_thread(give_back_memory)
        elif verb == "rotate":
            return await rotate_log(process.app, model)
        elif verb == "facts":
            return {"facts": process.app.facts(), "figures": export_figures(routes)}
        elif verb == "listen":
            await process.listen(listening)
        return None

    link = Link(end, obey, on_lost=stop.set)

    async def ask(verb: str, model: str, body: dict[str, Any]) -> Any:
        return await link.ask({"verb": verb, "model": model, "body": body})

    process.app.admin = AdminRoutes(ask)
    await stop.wait()
    await process.drain()
    link.close()


def seal(files: Mapping[str, bytes]) -> int:
    """Put a release's files into memory that nobody can change any more; return its descriptor, which other processes map."""
    index = orjson.dumps([[name, len(content)] for name, content in files.items()])
    file = os.memfd_create("falaj-release", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    with open(os.dup(file), "wb") as stream:  # noqa: PTH123 - a descriptor
        stream.write(len(index).to_bytes(8, "little"))
        stream.write(index)
        stream.writelines(files.values())
    fcntl.fcntl(file, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE)
    return file


def read_sealed(file: int) -> dict[str, bytes]:
    """Files of a sealed release."""
    with mmap.mmap(file, 0, prot=mmap.PROT_READ) as view:
        at = 8 + int.from_bytes(view[:8], "little")
        found = {}
        for name, length in orjson.loads(view[8:at]):
            found[name] = view[at : at + length]
            at += length
    return found


def _stop_event() -> asyncio.Event:
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop
