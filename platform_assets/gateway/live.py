"""Websockets: Dagster's `graphql-ws` subprotocol, each `start` judged like a request. It ends when the identity that opened it does."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import orjson
from starlette.websockets import WebSocket, WebSocketDisconnect
from websockets.asyncio.client import ClientConnection, unix_connect
from websockets.exceptions import ConnectionClosed, WebSocketException

from platform_assets.errors import FalajError, RequestError
from platform_assets.gateway.forward import USER_HEADER, graphql_body
from platform_assets.gateway.guard import Guard
from platform_assets.gateway.sites import Site
from platform_assets.identity.operations import read_operation
from platform_assets.identity.principal import Principal
from resources.sockets import short_path

PROTOCOL = "graphql-ws"
_PLAIN = {"connection_init", "connection_terminate", "stop"}
_LOOK_SECONDS = 1.0
_MOST_BYTES, _MOST_OPERATIONS = 32 << 20, 100
_NORMAL, _POLICY_VIOLATION, _NOT_THERE = 1000, 1008, 1013  # RFC 6455, 7.4


@dataclass
class Bridge:
    """One websocket of one caller. `holds`: whether the session that opened it was not ended meanwhile."""

    socket: WebSocket
    site: Site
    guard: Guard
    principal: Principal
    holds: Callable[[], bool]
    _running: set[str] = field(default_factory=set)

    async def pass_messages(self) -> None:
        """Pass messages both ways until either side ends."""
        headers = {USER_HEADER: quote(self.principal.name, safe=" ()@:/")}
        try:
            async with unix_connect(
                short_path(self.site.socket), uri=f"ws://dagster{self.site.prefix}/graphql", subprotocols=[PROTOCOL],
                additional_headers=headers, max_size=_MOST_BYTES, compression=None, proxy=None,
            ) as upstream:  # fmt: skip
                await self.socket.accept(subprotocol=PROTOCOL)
                await self._both_ways(upstream)
        except (OSError, WebSocketException, TimeoutError):
            with suppress(RuntimeError, WebSocketDisconnect):
                await self.socket.close(_NOT_THERE)

    async def _both_ways(self, upstream: ClientConnection) -> None:
        ways = (self._inward(upstream), self._outward(upstream), self._watch())
        tasks = [asyncio.create_task(way) for way in ways]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            with suppress(RuntimeError, WebSocketDisconnect):
                await self.socket.close(_NORMAL if self._may_go_on() else _POLICY_VIOLATION)

    def _may_go_on(self) -> bool:
        return self.holds() and time.time() < self.principal.expires

    async def _watch(self) -> None:
        while self._may_go_on():  # noqa: ASYNC110 - what ends it is a clock and a set, neither of which calls
            await asyncio.sleep(_LOOK_SECONDS)

    async def _inward(self, upstream: ClientConnection) -> None:
        with suppress(WebSocketDisconnect, ConnectionClosed):
            while True:
                text = await self.socket.receive_text()
                try:
                    await upstream.send(orjson.dumps(await self._judge(text)).decode())
                except FalajError as error:
                    told = {"type": "error", "id": _number(text), "payload": {"message": str(error)}}
                    await self.socket.send_text(orjson.dumps(told).decode())

    async def _judge(self, text: str) -> dict[str, Any]:
        self.guard.take(self.principal.name)
        message = _read(text)
        kind, number = message.get("type"), message.get("id")
        if kind in _PLAIN:
            self._running.discard(number or "")
            return {"type": kind, "id": number, "payload": {}}
        if kind != "start" or not number:
            raise RequestError(f"a message must be one of start, with an id, and {', '.join(sorted(_PLAIN))}")
        if len(self._running) >= _MOST_OPERATIONS:
            raise RequestError(f"one websocket may hold {_MOST_OPERATIONS} operations")
        operation, variables = read_operation(message.get("payload"))
        what = {"kind": operation.kind, "fields": list(operation.fields), "operation": operation.name}
        await self.guard.decide(self.principal, operation.actions, self.site.deployment, what)
        self._running.add(number)
        return {"type": "start", "id": number, "payload": graphql_body(operation, variables)}

    async def _outward(self, upstream: ClientConnection) -> None:
        with suppress(WebSocketDisconnect, ConnectionClosed, RuntimeError):
            async for message in upstream:
                text = message if isinstance(message, str) else message.decode()
                await self.socket.send_text(text)


def _read(text: str) -> dict[str, Any]:
    try:
        message = orjson.loads(text)
    except orjson.JSONDecodeError:
        raise RequestError("a message must be a JSON object") from None
    if not isinstance(message, dict) or not isinstance(message.get("id"), str | None):
        raise RequestError("a message must be a JSON object, its id a text")
    return message


def _number(text: str) -> str | None:
    with suppress(RequestError):
        return _read(text).get("id")
    return None
