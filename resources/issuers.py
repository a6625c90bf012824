"""Who is trusted to say who somebody is: this home's own issuer, or an OIDC provider whose keys are fetched and kept."""

from __future__ import annotations

import asyncio
import math
import os
import pwd
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import httpx
import jwt
from jwt.algorithms import OKPAlgorithm

from platform_assets.errors import AccessError
from platform_assets.identity.principal import EVERY_TENANT, Principal
from platform_assets.identity.tokens import Issuer, peek, read_jwks, verify
from platform_assets.stages.serving.access import ISSUER, read_public_key
from resources.tokens import LOGIN_AUDIENCE, ensure_signing_key, take_ticket

if TYPE_CHECKING:
    from pathlib import Path

_TIMEOUT_SECONDS = 5.0
_LEAST_SECONDS_BETWEEN = 30.0  # an unknown key id may mean a rotation; a flood of them must not become a flood at the issuer
_FRESH_SECONDS = 3600.0
_MOST_BYTES = 1 << 20


class Verifier(Protocol):
    """Checks tokens against the issuers of an environment."""

    async def check(self, token: str, *, audience: str) -> dict[str, Any]:
        """Return the claims; TokenError with the reason where it is not taken."""
        ...

    async def redeem(self, code: str) -> dict[str, Any]:
        """Return the claims of a login that waits for this code, once; AccessError where none does."""
        ...


def shell_user() -> Principal:
    """Whoever runs this process, as the operating system says; may read and approve here, as everything in this home lies open to them."""
    return Principal(pwd.getpwuid(os.getuid()).pw_name, "shell", frozenset({"approver"}), frozenset({EVERY_TENANT}), expires=math.inf)


@dataclass(frozen=True)
class LocalIssuer:
    """The issuer of `falaj token` and of the link that `falaj up` prints."""

    keys_dir: Path

    async def check(self, token: str, *, audience: str) -> dict[str, Any]:
        """Return the claims of a token that this home signed."""
        ensure_signing_key(self.keys_dir)
        key = read_public_key(self.keys_dir)
        assert key is not None  # it was made in the line before
        local = jwt.PyJWK(OKPAlgorithm.to_jwk(key, as_dict=True))
        return verify(token, {ISSUER: Issuer(ISSUER, audience, {"": local})})

    async def redeem(self, code: str) -> dict[str, Any]:
        """Return what `falaj up` left for this code."""
        return await self.check(take_ticket(self.keys_dir, code), audience=LOGIN_AUDIENCE)


@dataclass
class OidcIssuer:
    """An OIDC provider: its discovery document and JWKS, fetched when needed, again after an hour or at an unknown key id."""

    url: str
    _metadata: dict[str, Any] = field(default_factory=dict)
    _keys: dict[str, jwt.PyJWK] = field(default_factory=dict)
    _asked: float = -_FRESH_SECONDS
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def metadata(self) -> dict[str, Any]:
        """Return the discovery document; its issuer must be the one that was asked (OpenID Connect Discovery 1.0, 4.3)."""
        if not self._metadata:
            found = await _fetch(f"{self.url.rstrip('/')}/.well-known/openid-configuration")
            if found.get("issuer") != self.url:
                raise AccessError(
                    f"the issuer at {self.url} calls itself {str(found.get('issuer'))[:200]!r}; set FALAJ_OIDC_ISSUER to that"
                )
            self._metadata = found
        return self._metadata

    @property
    def known(self) -> dict[str, Any]:
        """The discovery document, once it was asked for."""
        return self._metadata

    async def check(self, token: str, *, audience: str) -> dict[str, Any]:
        """Return the claims of a token that this provider signed."""
        _, key_id = peek(token)
        age = time.monotonic() - self._asked
        if age > _FRESH_SECONDS or (key_id not in self._keys and age > _LEAST_SECONDS_BETWEEN):
            async with self._lock:
                await self._refresh(age)
        return verify(token, {self.url: Issuer(self.url, audience, self._keys)})

    async def redeem(self, code: str) -> dict[str, Any]:
        """Refuse: a provider logs people in by itself."""
        del code
        raise AccessError("links are not taken where FALAJ_OIDC_ISSUER says who somebody is")

    async def _refresh(self, age: float) -> None:
        if time.monotonic() - self._asked < min(age, _LEAST_SECONDS_BETWEEN):
            return  # somebody else did while this one waited
        self._asked = time.monotonic()
        try:
            self._keys = read_jwks(await _fetch((await self.metadata())["jwks_uri"]))
        except AccessError:
            if not self._keys:  # an issuer that is away for a while locks nobody out whose key is known
                self._asked = -_FRESH_SECONDS
                raise


async def _fetch(url: str) -> dict[str, Any]:
    try:
        async with httpx.AsyncClient(timeout=_TIMEOUT_SECONDS, follow_redirects=False, trust_env=False) as client:
            reply = await client.get(url)
            reply.raise_for_status()
            found = reply.json() if len(reply.content) <= _MOST_BYTES else None
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        raise AccessError(f"the issuer did not answer at {url}: {type(error).__name__}") from error
    if not isinstance(found, dict):
        raise AccessError(f"the issuer's answer at {url} is no JSON object")
    return found
