"""What the gateway itself answers: a refusal as one sentence, in the form that the asker reads; its few pages; headers on everything."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping

import orjson
from starlette.datastructures import Headers
from starlette.responses import HTMLResponse, RedirectResponse, Response

from platform_assets.errors import AccessError, FalajError, ForbiddenError, RequestError
from platform_assets.gateway.guard import BusyError

GUARDED = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
_STYLE = "body{font:16px/1.5 system-ui;max-width:36em;margin:12vh auto;padding:0 1em;color:#222}code{background:#eee;padding:.1em .3em}"


def refuse(error: FalajError) -> Response:
    """Return an error as JSON that GraphQL clients read as well; the sentence is ours, nothing of the inside is in it."""
    headers = dict(GUARDED)
    if isinstance(error, BusyError):
        status = 429
        headers["Retry-After"] = str(math.ceil(error.wait_seconds))
    elif isinstance(error, ForbiddenError):
        status = 403
    elif isinstance(error, AccessError):
        status = 401
        headers["WWW-Authenticate"] = "Bearer"
    else:
        status = 400 if isinstance(error, RequestError) else 502
    return answer({"errors": [{"message": str(error)}]}, status=status, headers=headers)


def answer(value: object, *, status: int = 200, headers: Mapping[str, str] = GUARDED) -> Response:
    """Return JSON."""
    return Response(
        orjson.dumps(value), status_code=status, media_type="application/json", headers={**headers, "Cache-Control": "no-store"}
    )


def page(title: str, body: str, *, status: int = 200) -> HTMLResponse:
    """Return a small page; `body` is HTML of ours, whatever came from outside escaped before."""
    policy = "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    headers = {**GUARDED, "Content-Security-Policy": policy, "Cache-Control": "no-store"}
    name = html.escape(title)
    head = f"<!doctype html><html lang=en><meta charset=utf-8><title>{name}</title><style>{_STYLE}</style>"
    return HTMLResponse(f"{head}<h1>{name}</h1>{body}", status_code=status, headers=headers)


def go(address: str) -> RedirectResponse:
    """Send a browser to another address of this gateway, or to the issuer."""
    return RedirectResponse(address, status_code=303, headers={**GUARDED, "Cache-Control": "no-store"})


def wants_page(method: str, headers: Headers) -> bool:
    """Whether a browser asks for something to look at: then it is sent to log in rather than told a sentence in JSON."""
    return method == "GET" and "text/html" in headers.get("accept", "")
