"""One HTTP server as the inference server asks it: the standard library alone, a few tries, its certificate held to one file."""

from __future__ import annotations

import http.client
import ssl
import time
from functools import cached_property
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from platform_assets.errors import OutageError, StateError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

_TIMEOUT_SECONDS, _TRIES, _PAUSE_SECONDS = 10.0, 3, 0.2


class Remote:
    """A server at `url` (http or https, host, port); `ca` holds whose certificates are taken, PEM."""

    def __init__(self, url: str, *, ca: Path | None = None) -> None:
        self.url, self._ca = url, ca
        address = urlsplit(url)
        self.netloc = address.netloc
        self._host, self._port, self._tls = address.hostname or "", address.port, address.scheme == "https"

    def ask(self, method: str, path: str, body: bytes, *, headers: Callable[[], Mapping[str, str]]) -> tuple[int, bytes]:
        """Return status and content; `headers` are made for each try. OutageError where nobody answers, StateError where none is trusted.

        A status of 500 and more is asked again, and returned if it stays.
        """
        last = ""
        found: tuple[int, bytes] | None = None
        for attempt in range(_TRIES):
            if attempt:
                time.sleep(_PAUSE_SECONDS)
            connection = self._connect()
            try:
                connection.request(method, path, body=body or None, headers=dict(headers()))
                reply = connection.getresponse()
                found = reply.status, reply.read()
            except ssl.SSLCertVerificationError as error:
                raise StateError(f"{self.url} was not trusted: {error.verify_message}; `ca` names whose certificates are") from None
            except (OSError, http.client.HTTPException) as error:
                last = " ".join(str(error).split()) or type(error).__name__
            else:
                if found[0] < HTTPStatus.INTERNAL_SERVER_ERROR:
                    return found
            finally:
                connection.close()
        if found is None:
            raise OutageError(f"{self.url} did not answer, {_TRIES} times: {last}")
        return found

    def _connect(self) -> http.client.HTTPConnection:
        if not self._tls:
            return http.client.HTTPConnection(self._host, self._port, timeout=_TIMEOUT_SECONDS)
        return http.client.HTTPSConnection(self._host, self._port, timeout=_TIMEOUT_SECONDS, context=self._trust)

    @cached_property
    def _trust(self) -> ssl.SSLContext:
        try:
            return ssl.create_default_context(cafile=self._ca)
        except (OSError, ssl.SSLError) as error:
            raise StateError(f"{self._ca} holds no certificates in PEM form ({error})") from None
