"""The admin routes: load a release, set traffic, look, rotate the log. What is changed is on disk before it is in force."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Coroutine
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from platform_assets.errors import RequestError, SealError, ServingError
from platform_assets.logs import event
from platform_assets.manifests import VERSION_DIGITS
from platform_assets.stages.serving import pages
from platform_assets.stages.serving.incidents import Incidents
from platform_assets.stages.serving.replies import NotFoundError, read_json, refuse
from platform_assets.stages.serving.traffic import Route, Traffic, read_state, write_state

if TYPE_CHECKING:
    from platform_assets.stages.serving.exchange import Exchange
    from platform_assets.stages.serving.fleet import Fleet

STATE_FILE = "state.json"
_DIGEST = re.compile(r"^[0-9a-f]{64}$")

# Carries out a verb for a model: here, or in the supervisor.
Ask = Callable[[str, str, dict[str, Any]], Awaitable[Any]]


class ConflictError(RequestError):
    """The release does not pass its checks (HTTP 400, nothing was changed)."""


class Admin:
    """Changes what is served, and says it. The routes are those that answer, or in a supervisor their record."""

    def __init__(self, routes: dict[str, Route], fleet: Fleet, *, serving: Path) -> None:
        self._routes, self._fleet, self._serving = routes, fleet, serving
        self._file, self._incidents = serving / STATE_FILE, Incidents(serving)
        self._turn = asyncio.Lock()
        self._verbs: dict[str, Callable[[str, dict[str, Any]], Coroutine[Any, Any, Any]]] = {
            "load": self._load,
            "traffic": self._set_traffic,
            "rotate": self._rotate,
            "": self._show,
            "status": self._status,
            "page": self._page,
            "metrics": self._metrics,
        }

    async def restore(self) -> None:
        """Go on from the state file; a release that no longer passes its checks is named and not served."""
        for model, saved in read_state(self._file).items():
            route = self._routes[model] = Route(model, traces=dict(saved.get("traces", {})))
            for digest, path in saved["loaded"].items():
                try:
                    route.loaded[digest] = await self._load_release(Path(path), model=model, digest=digest, champion=None)
                except ServingError as error:
                    route.fault = str(error)
            fault, traffic = route.fault, Traffic(**saved["traffic"])
            if traffic.challenger not in route.loaded:
                traffic = Traffic(live=traffic.live, previous=traffic.previous)
            route.apply(traffic)
            route.fault = fault
            await self._fleet.apply(model, traffic)

    async def follow(self, model: str, *, digest: str, path: Path) -> None:
        """Take a release live that another server has taken live, and tried; ServingError leaves what is served as it was."""
        async with self._turn:
            known = self._routes.get(model)
            if known is not None and known.live is not None and known.traffic == Traffic(live=digest, previous=known.traffic.previous):
                return
            held = known.loaded.get(digest) if known is not None else None
            loaded = held or await self._load_release(path, model=model, digest=digest, champion=None)
            route = self._routes.setdefault(model, Route(model))
            route.loaded[digest] = loaded
            traffic = route.checked(live=digest, challenger=None, mode="live", percent=0)
            self._save(route, traffic)
            route.apply(traffic)
            await self._fleet.apply(model, traffic)

    async def ask(self, verb: str, model: str, body: dict[str, Any]) -> Any:
        """Carry out one verb; changes take their turn."""
        if verb in ("load", "traffic", "rotate"):
            async with self._turn:
                return await self._verbs[verb](model, body)
        return await self._verbs[verb](model, body)

    async def _load(self, model: str, body: dict[str, Any]) -> dict[str, Any]:
        digest, path = body.get("digest"), body.get("path")
        if not isinstance(digest, str) or not _DIGEST.match(digest):
            raise RequestError(f"field 'digest': found {digest!r}; right would be the 64 hex digits of a release")
        if not isinstance(path, str) or not Path(path).is_absolute():
            raise RequestError(f"field 'path': found {path!r}; right would be the absolute path of the release's folder")
        trace = body.get("trace")
        if trace is not None and not isinstance(trace, str):
            raise RequestError(f"field 'trace': found {trace!r}; right would be a traceparent, or nothing")
        known = self._routes.get(model)
        if known is None or digest not in known.loaded:
            champion = known.live.bundle if known is not None and known.live is not None else None
            try:
                bundle = await self._load_release(Path(path), model=model, digest=digest, champion=champion)
            except ServingError as error:
                raise ConflictError(str(error)) from error
            route = self._routes.setdefault(model, Route(model))
            route.loaded[digest] = bundle
            if trace is not None:
                route.traces[digest] = trace
            route.unload_spare()
            self._save(route, route.traffic)
        return await self._show(model, {})

    async def _load_release(self, path: Path, *, model: str, digest: str, champion: Any) -> Any:
        """Have the processes load a release; the audit log shall hear of it, and of a refusal with its reason."""
        try:
            loaded = await self._fleet.load(path, model=model, digest=digest, champion=champion)
        except ServingError as error:
            reason = error.__cause__.reason if isinstance(error.__cause__, SealError) else "does not pass its checks"
            event(str(error), level=logging.ERROR, model=model, version=digest[:VERSION_DIGITS])
            self._incidents.note("release_refused", subject=f"model/{model}", digest=digest, reason=reason, why=str(error))
            raise
        self._incidents.note("release_opened", subject=f"model/{model}", digest=digest)
        event(f"release {digest[:VERSION_DIGITS]} of {model} is loaded", model=model, version=digest[:VERSION_DIGITS])
        return loaded

    async def _set_traffic(self, model: str, body: dict[str, Any]) -> dict[str, Any]:
        route = self._known(model)
        if unknown := sorted(set(body) - {"live", "challenger", "mode", "percent"}):
            raise RequestError(f"field {unknown[0]!r} is unknown; right would be live, challenger, mode, percent")
        traffic = route.checked(
            live=body.get("live"), challenger=body.get("challenger"), mode=body.get("mode", "live"), percent=body.get("percent", 0)
        )
        self._save(route, traffic)
        route.apply(traffic)
        await self._fleet.apply(model, traffic)
        live, beside = str(traffic.live)[:VERSION_DIGITS], (traffic.challenger or "")[:VERSION_DIGITS]
        event(
            f"{live} of {model} answers{f', {beside} beside it: {traffic.mode} {traffic.percent} %' if beside else ''}",
            model=model,
            version=live,
        )
        return route.status()

    async def _rotate(self, model: str, body: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG002 - one shape for all verbs
        self._known(model)
        return {"segments": await self._fleet.rotate(model)}

    async def _show(self, model: str, body: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG002 - one shape for all verbs
        """Status; a model that was never loaded has an empty one, since a first release is about to come."""
        await self._fleet.refresh(self._routes)
        return self._routes.get(model, Route(model)).status()

    async def _status(self, model: str, body: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG002 - one shape for all verbs
        facts = await self._fleet.refresh(self._routes)
        return {"server": facts, "models": {name: route.status() for name, route in self._routes.items()}}

    async def _page(self, model: str, body: dict[str, Any]) -> str:  # noqa: ARG002 - one shape for all verbs
        facts = await self._fleet.refresh(self._routes)
        return pages.status_page(self._routes.values(), facts, lights=pages.read_lights(self._serving))

    async def _metrics(self, model: str, body: dict[str, Any]) -> str:  # noqa: ARG002 - one shape for all verbs
        facts = await self._fleet.refresh(self._routes)
        return pages.metrics(self._routes.values(), facts)

    def _known(self, model: str) -> Route:
        if model not in self._routes:
            raise NotFoundError(f"there is no model {model!r} here; load a release of it first")
        return self._routes[model]

    def _save(self, changed: Route, traffic: Traffic) -> None:
        routes = self._routes
        write_state(self._file, {name: route.saved(traffic if route is changed else route.traffic) for name, route in routes.items()})


class AdminRoutes:
    """Asks the admin on behalf of a request and gives its reply when it comes."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._tasks: set[asyncio.Task[None]] = set()

    def handle(self, exchange: Exchange, *, model: str, verb: str) -> None:
        """Start the work; the reply comes when it is done."""
        body = read_json(exchange) if verb in ("load", "traffic") else {}
        if type(body) is not dict:
            raise RequestError("the body must be a JSON object")
        task = asyncio.get_running_loop().create_task(self._reply(exchange, verb, model, body))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _reply(self, exchange: Exchange, verb: str, model: str, body: dict[str, Any]) -> None:
        try:
            value = await self._ask(verb, model, body)
        except ServingError as error:
            refuse(exchange, error)
            return
        if verb == "page":
            exchange.respond(HTTPStatus.OK, value.encode(), kind=b"text/html; charset=utf-8", extra=b"x-content-type-options: nosniff\r\n")
        elif verb == "metrics":
            exchange.respond(HTTPStatus.OK, value.encode(), kind=b"text/plain; version=0.0.4; charset=utf-8")
        else:
            exchange.respond(HTTPStatus.OK, orjson.dumps(value))
