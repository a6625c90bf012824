"""The public keys of an OIDC issuer, and what its tokens allow here. Which tokens are valid at all is `identity.tokens`'.

Keys are fetched by a thread: when the server starts, each hour, and soon after a token named a key that is not known; until they are there
its tokens are refused, and a prediction never waits for the issuer. OpenID Connect Discovery 1.0, RFC 7517.
"""

from __future__ import annotations

import http.client
import json
import threading
import time
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import urlsplit

from platform_assets.errors import AccessError, ServingError
from platform_assets.identity.tokens import Issuer, TokenError, read_jwks, verify

_FRESH_SECONDS, _LEAST_SECONDS_BETWEEN = 3600.0, 30.0
_TIMEOUT_SECONDS = 5.0
_MOST_BYTES = 1 << 20
_SCOPES = ("scope", "scp")  # RFC 8693 4.2, and what Microsoft and Okta call it


class OidcIssuer:
    """One issuer, as this server knows it. `audience`: whom its tokens must be for."""

    def __init__(self, url: str, *, audience: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ServingError(
                f"--oidc-issuer {url!r} is no address; right would be as its tokens name it, such as https://login.example/main"
            )
        self.url, self.fault = url, "its keys were not fetched yet"
        self._issuer = Issuer(url, audience, {})
        self._wanted = threading.Event()

    def start(self) -> None:
        """Fetch the keys now and whenever they are wanted, for as long as the process lives."""
        threading.Thread(target=self._keep_fresh, name="oidc-keys", daemon=True).start()

    def read(self, token: str) -> tuple[float, frozenset[str]]:
        """Return until when a token holds, and its scopes; AccessError with the reason where it is not taken."""
        try:
            claims = verify(token, {self.url: self._issuer})
        except TokenError as error:
            if error.reason != "wrong key":
                raise
            self._wanted.set()
            raise AccessError(f"{error}{f' ({self.fault})' if self.fault else ''}; ask again in half a minute if it was changed") from error
        found = next((claims[name] for name in _SCOPES if name in claims), "")
        scopes = found.split() if isinstance(found, str) else found
        if not isinstance(scopes, list) or not all(isinstance(scope, str) for scope in scopes):
            raise AccessError("the token is not valid: its scope must be text or a list of texts")
        return float(claims["exp"]), frozenset(scopes)

    def refresh(self) -> None:
        """Fetch discovery document and keys; where that fails the keys that are known stay good, and `fault` says why."""
        try:
            self._issuer = Issuer(self.url, self._issuer.audience, read_jwks(_fetch(self._find_keys())))
            self.fault = ""
        except (OSError, http.client.HTTPException, ValueError, AccessError) as error:
            self.fault = f"the issuer's keys could not be fetched: {error if isinstance(error, AccessError) else type(error).__name__}"

    def _find_keys(self) -> str:
        found = _fetch(f"{self.url.rstrip('/')}/.well-known/openid-configuration")
        if found.get("issuer") != self.url:  # OpenID Connect Discovery 1.0, 4.3
            raise AccessError(f"the issuer calls itself {str(found.get('issuer'))[:200]!r}; --oidc-issuer must be that")
        return str(found.get("jwks_uri"))

    def _keep_fresh(self) -> None:
        while True:
            self._wanted.clear()
            self.refresh()
            time.sleep(_LEAST_SECONDS_BETWEEN)  # a flood of unknown keys must not become a flood at the issuer
            self._wanted.wait(_LEAST_SECONDS_BETWEEN if self.fault else _FRESH_SECONDS)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        """Follow nothing: the keys are where the issuer says, or nowhere."""


def _fetch(url: str) -> dict[str, Any]:
    if urlsplit(url).scheme not in ("http", "https"):
        raise AccessError("the issuer names no address of its keys")
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirect())
    with opener.open(url, timeout=_TIMEOUT_SECONDS) as reply:
        found = json.loads(reply.read(_MOST_BYTES))
    if not isinstance(found, dict):
        raise AccessError("the issuer's answer is no JSON object")
    return found
