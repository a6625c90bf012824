"""The gateway as an ASGI application: each request is identified, judged and sent on, in that order, or refused with one sentence."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlsplit

import aiohttp
import orjson
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, HTTPConnection, Request
from starlette.responses import Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from platform_assets.errors import AccessError, FalajError, ForbiddenError, RequestError
from platform_assets.gateway import answers, live
from platform_assets.gateway.forward import forward, graphql_body, named_once
from platform_assets.gateway.guard import Guard
from platform_assets.gateway.inbox import ROOM as EVENTS
from platform_assets.gateway.inbox import Inbox
from platform_assets.gateway.login import ROOM, Login, client_address
from platform_assets.gateway.sites import Site, find_site
from platform_assets.identity.actions import Action
from platform_assets.identity.doors import GRAPHQL, MLFLOW, find_door
from platform_assets.identity.mlflow_doors import check_mlflow_body, find_mlflow_door
from platform_assets.identity.operations import read_operation
from platform_assets.identity.principal import Principal

_MOST_BODY = 4 << 20
_MOST_QUERY = 8192
_HEALTH = aiohttp.ClientTimeout(total=5)
_SAFE = ("GET", "HEAD")
_ODD = re.compile(rb"%(?:2f|5c|00|25)", re.IGNORECASE)  # slashes, NUL and percent signs that would read differently decoded once more
_JSON = re.compile(r"application/json(?:\s*;\s*charset=utf-8)?\s*", re.IGNORECASE)


@dataclass
class Gateway:
    """Its sites, and what guards them. `hosts`: names under which it may be asked for (against DNS rebinding). `inbox`: for webhooks."""

    sites: Sequence[Site]
    guard: Guard
    login: Login
    hosts: frozenset[str]
    inbox: Inbox | None = None
    _clients: dict[str, aiohttp.ClientSession] = field(default_factory=dict)

    def app(self) -> Starlette:
        """Return the application."""
        rooms = [("login", self.login.begin, "GET"), ("callback", self.login.callback, "GET"), ("ticket", self.login.ticket, "GET")]
        mine = [*rooms, ("", self.login.show, "GET"), ("logout", self.login.end, "POST")]
        routes = [Route(f"{ROOM}/{name}", self._guarded(handler), methods=[method]) for name, handler, method in mine]
        if self.inbox is not None:
            routes.append(Route(f"{EVENTS}/{{sender}}", self._guarded(self.inbox.take), methods=["POST"]))
        methods = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
        return Starlette(
            routes=[
                Route("/healthz", self._health),
                *routes,
                Route("/{path:path}", self._guarded(self._pass), methods=methods),
                WebSocketRoute("/{path:path}", self._socket),
            ],
            lifespan=self._lifespan,
        )

    @asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            for site in self.sites:
                self._clients[site.prefix] = await stack.enter_async_context(site.open_client())
            yield
            await self.guard.tell_denials()

    async def _health(self, _: Request) -> Response:
        try:
            replies = [await self._clients[site.prefix].get(site.address(site.health), timeout=_HEALTH) for site in self.sites]
        except (aiohttp.ClientError, TimeoutError):
            replies = []
        is_up = bool(replies) and all(reply.ok for reply in replies)
        for reply in replies:
            reply.release()
        return answers.answer({"up": is_up}, status=200 if is_up else 503)

    def _guarded(self, handler: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
        async def answered(request: Request) -> Response:
            try:
                self._check_host(request)
                return await handler(request)
            except AccessError as error:
                if not isinstance(error, ForbiddenError) and answers.wants_page(request.method, request.headers):
                    return self._to_login(request, error)
                return answers.refuse(error)
            except FalajError as error:
                return answers.refuse(error)
            except ClientDisconnect:
                return Response(status_code=400)

        return answered

    def _to_login(self, request: Request, error: AccessError) -> Response:
        if request.url.path.startswith(ROOM):
            return answers.page("Not logged in", f'<p>{error}.</p><p><a href="{ROOM}/login">Log in</a></p>', status=401)
        wanted = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        return answers.go(f"{ROOM}/login?next={quote(wanted[:_MOST_QUERY], safe='/')}")

    def _check_host(self, connection: HTTPConnection) -> None:
        if connection.headers.get("host", "").lower() not in self.hosts:
            raise RequestError("this gateway is not asked for by that name; FALAJ_WEB_URL names the one that people use")

    async def _identify(self, connection: HTTPConnection, method: str) -> tuple[Principal, str]:
        """Identify; whoever comes by a cookie and changes something must come from a page of this gateway (against request forgery)."""
        authorization, cookie = connection.headers.get("authorization"), connection.cookies.get(self.login.cookie)
        address = client_address(connection)  # type: ignore[arg-type]
        found = await self.guard.identify(authorization=authorization, cookie=cookie, address=address)
        if (
            authorization is None
            and method not in _SAFE
            and urlsplit(connection.headers.get("origin", "")).netloc.lower() not in self.hosts
        ):
            await self.guard.count_denial(found[0].name, "foreign origin")
            raise ForbiddenError("this came from a page of another site; it was not done")
        return found

    def _place(self, connection: HTTPConnection) -> tuple[Site, str]:
        if _ODD.search(connection.scope.get("raw_path", b"")) or len(connection.scope["query_string"]) > _MOST_QUERY:
            raise RequestError("the address holds encoded slashes or percent signs, or is too long")
        found = find_site(self.sites, connection.scope["path"])
        if found is None:
            raise ForbiddenError("there is nothing here for you")
        return found

    async def _pass(self, request: Request) -> Response:
        if request.scope["path"] == "/" and "" not in self._clients:
            return await self._list_sites(request)
        principal, _ = await self._identify(request, request.method)
        site, path = self._place(request)
        if path == GRAPHQL and request.method == "POST":
            return await self._graphql(request, site, principal)
        if site.kind == "mlflow":
            return await self._mlflow(request, site, path, principal)
        door = find_door(request.method, path)
        body = await self._read_json(request) if door.has_body else None
        await self.guard.decide(principal, [door.action], site.deployment, {"path": path[:200]})
        return await forward(
            self._clients[site.prefix], request.method, site.address(path, request.scope["query_string"]), principal=principal,
            headers=request.headers, body=body, called=site.called,
        )  # fmt: skip

    async def _mlflow(self, request: Request, site: Site, path: str, principal: Principal) -> Response:
        query = request.scope["query_string"]
        if request.scope["path"] == site.prefix:
            return answers.go(f"{site.prefix}/")  # its page asks for what is beside it
        door = find_mlflow_door(request.method, path, query.decode("latin-1"))
        body = await self._read_json(request) if door.has_body else None
        if door.has_body:
            check_mlflow_body(path, body)
        await self.guard.decide(principal, [door.action], site.deployment, {"path": f"{MLFLOW}{path}"[:200]})
        return await forward(
            self._clients[site.prefix], request.method, site.address(path, query), principal=principal, headers=request.headers, body=body,
            called=site.called,
        )  # fmt: skip

    async def _graphql(self, request: Request, site: Site, principal: Principal) -> Response:
        if request.scope["query_string"] and not re.fullmatch(rb"op(?:Name)?=\w*", request.scope["query_string"]):
            raise RequestError("a GraphQL request is read from its body; the address must hold no query")
        operation, variables = read_operation(await self._read_json(request))
        what = {"kind": operation.kind, "fields": list(operation.fields), "operation": operation.name, **named(variables)}
        await self.guard.decide(principal, operation.actions, site.deployment, what)
        return await forward(
            self._clients[site.prefix], "POST", site.address(GRAPHQL), principal=principal, headers=request.headers,
            body=graphql_body(operation, variables) if site.kind == "dagster" else named_once(operation, variables), called=site.called,
        )  # fmt: skip

    async def _read_json(self, request: Request) -> Any:
        if not _JSON.fullmatch(request.headers.get("content-type", "")) or "content-encoding" in request.headers:
            raise RequestError("the body must be application/json in UTF-8, not compressed")
        content = bytearray()
        async for part in request.stream():
            content += part
            if len(content) > _MOST_BODY:
                raise RequestError(f"the body must be at most {_MOST_BODY} bytes")
        try:
            return orjson.loads(content)
        except orjson.JSONDecodeError:
            raise RequestError("the body is no JSON") from None

    async def _list_sites(self, request: Request) -> Response:
        principal, _ = await self._identify(request, request.method)
        mine = [site for site in self.sites if self.guard.policies.allow(principal, Action.READ, site.deployment)]
        if len({site.deployment for site in mine}) == 1:
            return answers.go(f"{mine[0].prefix}/")
        if not mine:
            raise ForbiddenError("no tenant's deployment is open to you; your issuer says which tenants are yours")
        links = "".join(f'<p><a href="{site.prefix}/">{site.prefix.strip("/")}</a></p>' for site in mine)
        return answers.page("Deployments", links)

    async def _socket(self, socket: WebSocket) -> None:
        try:
            self._check_host(socket)
            principal, session = await self._identify(socket, "WEBSOCKET")
            site, path = self._place(socket)
            if site.kind != "dagster" or path != GRAPHQL or live.PROTOCOL not in socket.scope["subprotocols"]:
                raise RequestError(f"websockets are at {GRAPHQL} alone, by the subprotocol {live.PROTOCOL}")
            await self.guard.decide(principal, [Action.READ], site.deployment, {})
        except FalajError:
            await socket.close()  # before it was accepted: the caller sees status 403
            return
        await live.Bridge(socket, site, self.guard, principal, holds=lambda: session not in self.guard.used).pass_messages()


def named(variables: dict[str, Any]) -> dict[str, Any]:
    """Return what an audit entry says of a request's variables: ids and names, nothing that could be a personal value."""
    parameters = variables.get("executionParams")
    selector = parameters.get("selector") if isinstance(parameters, dict) else None
    job = next((selector[key] for key in ("jobName", "pipelineName") if isinstance(selector, dict) and selector.get(key)), None)
    found = {"run": variables.get("runId"), "job": job, "sensor": variables.get("sensorName"), "schedule": variables.get("scheduleName")}
    return {name: value[:200] for name, value in found.items() if isinstance(value, str)}
