"""The admin routes: load a release, set traffic, look, rotate the log. What is changed is on disk before it is in force."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Coroutine
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from platform_assets.errors import RequestError, ServingError
from platform_assets.stages.serving.bundle import load_bundle
from platform_assets.stages.serving.replies import NotFoundError, read_json, refuse
from platform_assets.stages.serving.traffic import Route, Traffic, read_state, write_state

if TYPE_CHECKING:
    from platform_assets.stages.serving.app import App
    from platform_assets.stages.serving.http import Exchange

STATE_FILE = "state.json"
_DIGEST = re.compile(r"^[0-9a-f]{64}$")


class ConflictError(RequestError):
    """The release does not pass its checks (HTTP 400, nothing was changed)."""


class Admin:
    """Changes what is served. Loading runs in a thread: requests go on meanwhile."""

    def __init__(self, app: App, *, serving: Path) -> None:
        self._app = app
        self._file = serving / STATE_FILE
        self._tasks: set[asyncio.Task[None]] = set()
        self._verbs: dict[str, Callable[[str, Any], Coroutine[Any, Any, Any]]] = {
            "load": self._load,
            "traffic": self._set_traffic,
            "rotate": self._rotate,
            "": self._show,
        }

    def restore(self) -> None:
        """Go on from the state file; a release that no longer passes its checks is named and not served."""
        for model, saved in read_state(self._file).items():
            route = self._app.routes[model] = Route(model)
            for digest, path in saved["loaded"].items():
                try:
                    route.loaded[digest] = load_bundle(Path(path), model=model, digest=digest)
                except ServingError as error:
                    route.fault = str(error)
            fault, traffic = route.fault, Traffic(**saved["traffic"])
            if traffic.challenger not in route.loaded:
                traffic = Traffic(live=traffic.live, previous=traffic.previous)
            route.apply(traffic)
            route.fault = fault

    def handle(self, exchange: Exchange, *, model: str, verb: str) -> None:
        """Start the work; the reply comes when it is done."""
        body = read_json(exchange) if verb in ("load", "traffic") else {}
        if type(body) is not dict:
            raise RequestError("the body must be a JSON object")
        task = asyncio.get_running_loop().create_task(self._reply(exchange, self._verbs[verb](model, body)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _reply(self, exchange: Exchange, work: Coroutine[Any, Any, Any]) -> None:
        try:
            value = await work
        except ServingError as error:
            refuse(exchange, error)
        else:
            exchange.respond(HTTPStatus.OK, orjson.dumps(value))

    async def _load(self, model: str, body: dict[str, Any]) -> dict[str, Any]:
        digest, path = body.get("digest"), body.get("path")
        if not isinstance(digest, str) or not _DIGEST.match(digest):
            raise RequestError(f"field 'digest': found {digest!r}; right would be the 64 hex digits of a release")
        if not isinstance(path, str) or not Path(path).is_absolute():
            raise RequestError(f"field 'path': found {path!r}; right would be the absolute path of the release's folder")
        known = self._app.routes.get(model)
        if known is None or digest not in known.loaded:
            try:
                bundle = await asyncio.to_thread(load_bundle, Path(path), model=model, digest=digest)
            except ServingError as error:
                raise ConflictError(str(error)) from error
            route = self._app.routes.setdefault(model, Route(model))
            route.loaded[digest] = bundle
            route.unload_spare()
            self._save(route, route.traffic)
        return self._app.routes[model].status()

    async def _set_traffic(self, model: str, body: dict[str, Any]) -> dict[str, Any]:
        route = self._known(model)
        if unknown := sorted(set(body) - {"live", "challenger", "mode", "percent"}):
            raise RequestError(f"field {unknown[0]!r} is unknown; right would be live, challenger, mode, percent")
        traffic = route.checked(
            live=body.get("live"), challenger=body.get("challenger"), mode=body.get("mode", "live"), percent=body.get("percent", 0)
        )
        self._save(route, traffic)
        route.apply(traffic)
        return route.status()

    async def _rotate(self, model: str, body: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG002 - one shape for all verbs
        self._known(model)
        try:
            segments = await asyncio.wrap_future(self._app.log.rotate(model))
        except OSError as error:
            raise ServingError(f"the prediction log of {model} could not be closed: {error.strerror}") from error
        return {"segments": [str(segment) for segment in segments]}

    async def _show(self, model: str, body: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG002 - one shape for all verbs
        """Status; a model that was never loaded has an empty one, since a first release is about to come."""
        return self._app.routes.get(model, Route(model)).status()

    def _known(self, model: str) -> Route:
        if model not in self._app.routes:
            raise NotFoundError(f"there is no model {model!r} here; load a release of it first")
        return self._app.routes[model]

    def _save(self, changed: Route, traffic: Traffic) -> None:
        routes = self._app.routes
        write_state(self._file, {name: route.saved(traffic if route is changed else route.traffic) for name, route in routes.items()})
