"""Refusals and request bodies: which kind of error gets which HTTP status. What a route does belongs to the routes."""

from __future__ import annotations

import logging
import traceback
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import orjson

from platform_assets.errors import AccessError, RequestError, ServingError
from platform_assets.logs import writes_json
from platform_assets.stages.serving.access import ScopeError
from platform_assets.stages.serving.traffic import NotFoundError

if TYPE_CHECKING:
    from platform_assets.stages.serving.exchange import Exchange

SERVER_VERSION = "0.1.0"
_RETRY = b"retry-after: 1\r\n"
_SHOWN_FAULTS = 20


class UnforeseenError(ServingError):
    """A fault of the server's own (HTTP 500)."""


class Unforeseen:
    """Counts faults of the server's own and shows the first of them with their traceback on standard error."""

    def __init__(self) -> None:
        self.count = 0

    def note(self, error: Exception) -> UnforeseenError:
        """Count an exception that nobody foresaw; return what the caller is told."""
        self.count += 1
        if self.count <= _SHOWN_FAULTS:
            if writes_json():
                logging.getLogger("falaj").error("a request met a fault of the server's own", exc_info=error)
            else:
                traceback.print_exception(error)
        return UnforeseenError(f"the server could not answer because of a fault of its own ({type(error).__name__}); its log says more")


class MethodError(RequestError):
    """The path exists, the method does not fit it (HTTP 405)."""

    def __init__(self, right: str) -> None:
        super().__init__(f"this path is asked with {right}")
        self.right = right


def read_json(exchange: Exchange) -> Any:
    """Parsed body; RequestError where it is none."""
    try:
        return orjson.loads(exchange.body)
    except orjson.JSONDecodeError as error:
        raise RequestError(f"the body is not JSON: {error}") from error


def refuse(exchange: Exchange, error: ServingError) -> None:
    """Reply with the status that the kind of error has."""
    extra = b""
    if isinstance(error, ScopeError):
        status = HTTPStatus.FORBIDDEN
    elif isinstance(error, AccessError):
        status, extra = HTTPStatus.UNAUTHORIZED, b"www-authenticate: Bearer\r\n"
    elif isinstance(error, NotFoundError):
        status = HTTPStatus.NOT_FOUND
    elif isinstance(error, MethodError):
        status, extra = HTTPStatus.METHOD_NOT_ALLOWED, f"allow: {error.right}\r\n".encode()
    elif isinstance(error, UnforeseenError):
        status = HTTPStatus.INTERNAL_SERVER_ERROR
    elif isinstance(error, RequestError):
        status = HTTPStatus.BAD_REQUEST
    else:
        status, extra = HTTPStatus.SERVICE_UNAVAILABLE, _RETRY
    exchange.refuse(status, str(error), extra=extra)
