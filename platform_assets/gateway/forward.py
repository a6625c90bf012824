"""A judged request, sent on to the server behind, and its answer brought back. Only headers of a list cross, in either direction."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any
from urllib.parse import quote

import aiohttp
import orjson
import yarl
from starlette.responses import Response, StreamingResponse

from platform_assets.errors import ServingError
from platform_assets.gateway.answers import GUARDED, answer
from platform_assets.identity.operations import Operation
from platform_assets.identity.principal import Principal

USER_HEADER = "X-Falaj-User"  # set here alone; a launched run bears it as its actor
_ASKED = ("accept", "accept-encoding", "if-none-match", "if-modified-since", "range")
_TOLD = (
    "content-type", "content-encoding", "content-length", "content-disposition", "content-range", "accept-ranges", "etag", "last-modified",
    "cache-control", "content-security-policy", "vary",
)  # fmt: skip
_WHOLE_BYTES = 1 << 20  # a larger answer, such as a debug file, is passed on as it comes
_ERROR = 500


async def forward(
    client: aiohttp.ClientSession,
    method: str,
    address: yarl.URL,
    *,
    principal: Principal,
    headers: Mapping[str, str],
    body: object = None,
    called: str,
) -> Response:
    """Send a request on. `address` is what was judged, encoded anew; `body` is JSON, written anew; `called` is what a refusal names."""
    sent = {name: headers[name] for name in _ASKED if name in headers} | {USER_HEADER: quote(principal.name, safe=" ()@:/")}
    content = None
    if body is not None:
        content, sent["content-type"] = orjson.dumps(body), "application/json"
    try:
        reply = await client.request(
            method,
            address,
            headers=sent,
            data=content,
            allow_redirects=False,
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding"),
        )
        return await _bring_back(reply, called)
    except (aiohttp.ClientError, TimeoutError) as error:
        raise ServingError(f"{called} did not answer ({type(error).__name__}); `falaj status` says whether it runs") from error


async def _bring_back(reply: aiohttp.ClientResponse, called: str) -> Response:
    told = {name: reply.headers[name] for name in _TOLD if name in reply.headers} | GUARDED
    if reply.status >= _ERROR:
        return _without_traces(await reply.read(), called)
    if int(reply.headers.get("content-length", _WHOLE_BYTES + 1)) > _WHOLE_BYTES:
        return StreamingResponse(_pass_on(reply), status_code=reply.status, headers=told)
    return Response(await reply.read(), status_code=reply.status, headers=told)


async def _pass_on(reply: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    async with reply:
        async for part in reply.content.iter_any():
            yield part


def _without_traces(content: bytes, called: str) -> Response:
    """GraphQL errors come as status 500 with the stack in them: the sentences stay, the stack does not (GraphQL over HTTP, 6.4.1)."""
    try:
        found = orjson.loads(content)
        errors = [{name: error[name] for name in ("message", "path", "locations") if name in error} for error in found["errors"]]
        return answer({"data": found.get("data"), "errors": errors})
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
        return answer({"errors": [{"message": f"{called} could not answer this request; its log says why"}]}, status=422)


def named_once(operation: Operation, variables: dict[str, Any]) -> dict[str, Any]:
    """Return the request in the form that GraphQL over HTTP has, which MLflow reads."""
    return {"query": operation.document, "variables": variables, "operationName": operation.name}


def graphql_body(operation: Operation, variables: dict[str, Any]) -> dict[str, Any]:
    """Return the request as it was judged, in the form that HTTP and Dagster's websocket read."""
    return {
        "query": operation.document,
        "variables": variables,
        "operationName": operation.name,
        "operation_name": operation.name,
    }
