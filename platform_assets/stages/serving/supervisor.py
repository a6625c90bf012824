"""The control plane of several workers: one process a core behind one port, forked, told what to serve, replaced when they die.

It verifies a release once, lets a process of its own try it (a release that crashes takes no worker with it), seals its bytes and hands
them to every worker. It holds the listening sockets, so that callers of a worker that died wait for its successor. It has no threads and
never runs a model: forking it is cheap and safe.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
import socket
import sys
import time
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from platform_assets.errors import FalajError, ServingError
from platform_assets.logs import say
from platform_assets.stages.serving.admin import Admin
from platform_assets.stages.serving.bundle import MODEL_FILE, Bundle, build_bundle, check_speed, read_files
from platform_assets.stages.serving.fleet import Stored, merge_facts, merge_figures
from platform_assets.stages.serving.following import followed
from platform_assets.stages.serving.links import Link, LostError, pair
from platform_assets.stages.serving.tls import BACKLOG
from platform_assets.stages.serving.traffic import Route, Traffic
from platform_assets.stages.serving.worker import DRAIN_SECONDS, LAST_CALLS_SECONDS, ServerConfig, read_sealed, run_worker, seal

_TRIAL_SECONDS = 120.0
_SHORT_LIFE_SECONDS = 2.0  # a worker that ends sooner is started again only after this


@dataclass
class _Place:
    """One worker's place: its core, its socket, and who fills it."""

    number: int
    core: int | None
    listening: socket.socket
    pid: int = 0
    link: Link | None = None
    end: socket.socket | None = None
    started: float = 0.0
    ready: bool = field(default=False)


class Supervisor:
    """Forks outside of its event loop's run: a child never sees a running loop."""

    def __init__(self, config: ServerConfig, sockets: list[socket.socket]) -> None:
        cores = sorted(os.sched_getaffinity(0))
        pinned = len(sockets) <= len(cores)
        self._config = config
        self._places = [_Place(at, cores[at] if pinned else None, listening) for at, listening in enumerate(sockets)]
        for listening in sockets:
            listening.listen(BACKLOG)
        self._loop = asyncio.new_event_loop()
        self._routes: dict[str, Route] = {}
        self._admin = Admin(self._routes, self, serving=config.serving)
        self._wake = asyncio.Event()
        self._stopping = False

    def run(self, announce: Callable[[], None]) -> None:
        """Serve until SIGTERM or SIGINT; `announce` is called once every worker listens."""
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._stop)
        self._loop.run_until_complete(self._admin.restore())
        following = followed(self._admin, self._config.follow)
        self._loop.run_until_complete(following.__aenter__())  # it goes on in the pauses between forks
        announced = False
        try:
            while not self._stopping:
                for place in self._places:
                    if place.pid == 0:
                        self._fork(place)
                self._loop.run_until_complete(self._settle())
                if not announced and all(place.ready for place in self._places):
                    announce()
                    announced = True
                self._loop.run_until_complete(self._watch())
        finally:
            self._loop.run_until_complete(following.__aexit__(None, None, None))
            self._loop.run_until_complete(self._end_all())
            self._loop.close()

    # the workers
    def _fork(self, place: _Place) -> None:
        ours, theirs = pair()
        pid = os.fork()
        if pid == 0:
            self._be_worker(place, ours, theirs)
        theirs.close()
        place.pid, place.started, place.end = pid, time.monotonic(), ours

    def _be_worker(self, place: _Place, ours: socket.socket, theirs: socket.socket) -> None:
        status = 1
        try:
            _forget_parent()
            ours.close()
            for other in self._places:
                if other.end is not None:
                    other.end.close()
                if other is not place:
                    other.listening.close()
            run_worker(self._config, worker=place.number, core=place.core, end=theirs, listening=place.listening)
            status = 0
        except FalajError as error:
            say(str(error))
        finally:
            sys.stderr.flush()
            os._exit(status)

    async def _settle(self) -> None:
        """Link new workers, tell them what to serve and have them listen."""
        for place in self._places:
            if place.pid and place.link is None and place.end is not None:
                place.link = Link(place.end, self._answer, on_lost=lambda place=place: self._lost(place))  # type: ignore[misc]
                with contextlib.suppress(LostError):
                    for model, route in self._routes.items():
                        for stored in route.loaded.values():
                            await place.link.ask(_load_order(model, stored), files=[stored.file])  # type: ignore[attr-defined]
                        await place.link.ask(_apply_order(route))
                    await place.link.ask({"do": "listen"})
                    place.ready = True

    async def _watch(self) -> None:
        await self._wake.wait()
        self._wake.clear()
        for place in self._places:
            if place.pid and place.link is None:
                os.waitpid(place.pid, 0)  # noqa: ASYNC222 - it has closed its end: it is as good as gone
                place.pid = 0
                if not self._stopping and time.monotonic() - place.started < _SHORT_LIFE_SECONDS:
                    await asyncio.sleep(_SHORT_LIFE_SECONDS)

    def _lost(self, place: _Place) -> None:
        place.link, place.end, place.ready = None, None, False
        self._wake.set()

    def _stop(self) -> None:
        self._stopping = True
        self._wake.set()

    async def _end_all(self) -> None:
        """Have every worker drain; who takes too long is killed."""
        living = [place for place in self._places if place.pid]
        for place in living:
            with contextlib.suppress(ProcessLookupError):
                os.kill(place.pid, signal.SIGTERM)
        await asyncio.sleep(LAST_CALLS_SECONDS)
        for place in self._places:
            place.listening.close()
        until = time.monotonic() + DRAIN_SECONDS + 1
        while living and time.monotonic() < until:
            await asyncio.sleep(0.02)
            living = [place for place in living if os.waitpid(place.pid, os.WNOHANG) == (0, 0)]  # noqa: ASYNC222 - does not wait
        for place in living:
            os.kill(place.pid, signal.SIGKILL)
            os.waitpid(place.pid, 0)  # noqa: ASYNC222 - killed

    async def _answer(self, order: dict[str, Any], files: list[int]) -> Any:
        del files
        return await self._admin.ask(order["verb"], order["model"], order["body"])

    async def _tell(self, order: dict[str, Any], *, files: tuple[int, ...] = ()) -> list[Any]:
        """Ask every worker; one that dies meanwhile is told when its successor starts."""
        links = [place.link for place in self._places if place.link is not None and place.ready]
        answers = await asyncio.gather(*(link.ask(order, files=files) for link in links), return_exceptions=True)
        good = []
        for answer in answers:
            if isinstance(answer, BaseException):
                if not isinstance(answer, LostError):
                    raise answer
            else:
                good.append(answer)
        return good

    # what the admin needs (fleet.Fleet)
    async def load(self, path: Path, *, model: str, digest: str, champion: Stored | None) -> Stored:
        """Verify, try in a process of its own, seal, and hand it to every worker."""
        files = read_files(path, model=model, digest=digest, opener=self._config.opener())
        stored = Stored(digest, path, seal(files), len(files[MODEL_FILE]))
        weakref.finalize(stored, os.close, stored.file)  # the workers' maps outlive it
        self._try(stored, model=model, champion=champion)
        await self._tell(_load_order(model, stored), files=(stored.file,))
        return stored

    async def apply(self, model: str, traffic: Traffic) -> None:
        """Have every worker answer by this traffic."""
        del traffic  # the route has it
        await self._tell(_apply_order(self._routes[model]))

    async def rotate(self, model: str) -> list[str]:
        """Close every worker's segment."""
        found = {segment for segments in await self._tell({"do": "rotate", "model": model}) for segment in segments}
        return sorted(found)

    async def refresh(self, routes: Mapping[str, Route]) -> dict[str, Any]:
        """Sum up what the workers counted."""
        answers = await self._tell({"do": "facts"})
        merge_figures(routes, [answer["figures"] for answer in answers])
        workers = [{"number": place.number, "pid": place.pid, "core": place.core} for place in self._places]
        return {**merge_facts([answer["facts"] for answer in answers]), "workers": workers}

    def _try(self, stored: Stored, *, model: str, champion: Stored | None) -> None:
        """Load and check it in a child; ServingError where it is refused, crashes or takes too long."""
        mouth, ear = os.pipe()
        pid = os.fork()
        if pid == 0:
            said = b"it ended unexpectedly"
            try:
                _forget_parent()
                bundle = _build(stored, model)
                if champion is not None:
                    check_speed(bundle, _build(champion, model))
                said = b""
            except ServingError as error:
                said = str(error).encode()
            finally:
                os.write(ear, b"!" + said)
                os._exit(0)
        os.close(ear)
        with open(mouth, "rb", buffering=0) as stream:  # noqa: PTH123 - a descriptor
            ready = select.select([stream], [], [], _TRIAL_SECONDS)[0]
            said = stream.read(65536) if ready else b""
        if not ready:
            os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        if said == b"!":
            return
        release = f"release {stored.version} of {model}"
        if said:
            raise ServingError(said[1:].decode())
        why = (
            f"it was not warm after {_TRIAL_SECONDS:g} s" if not ready else f"the process that tried it ended with {_describe_end(status)}"
        )
        raise ServingError(f"{release} was refused: {why}; nothing was changed")


def _build(stored: Stored, model: str) -> Bundle:
    return build_bundle(read_sealed(stored.file), path=stored.path, model=model, digest=stored.digest)


def _describe_end(status: int) -> str:
    return f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else f"status {os.WEXITSTATUS(status)}"


def _load_order(model: str, stored: Any) -> dict[str, Any]:
    return {"do": "load", "model": model, "digest": stored.digest, "path": str(stored.path)}


def _apply_order(route: Route) -> dict[str, Any]:
    return {"do": "apply", "model": route.model, "traffic": vars(route.traffic), "fault": route.fault, "traces": route.traces}


def _forget_parent() -> None:
    """Undo what a fork inherits of the supervisor's event loop: its signal handlers would write into the parent's wake-up socket."""
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    asyncio.set_event_loop(None)
