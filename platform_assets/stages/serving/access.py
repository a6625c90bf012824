"""Who may ask what: tokens of this home or of an OIDC issuer, services by certificate, loopback peers.

Minting and issuing are in `resources`, only public keys are here.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from platform_assets.errors import AccessError, ServingError
from platform_assets.identity.services import MONITORING, PLATFORM, Service
from platform_assets.identity.tokens import TokenError, peek

if TYPE_CHECKING:
    from platform_assets.stages.serving.oidc import OidcIssuer

ISSUER, AUDIENCE, ALGORITHM = "falaj", "falaj-serving", "EdDSA"
PUBLIC_KEY_FILE = "tokens.pub.pem"
ADMIN, PREDICT, METRICS = "admin", "predict", "metrics"
# What a service may by its certificate alone. Changing what is served takes a token as well: neither, when stolen, is enough.
_OF_SERVICES = {PLATFORM: frozenset({PREDICT, METRICS}), MONITORING: frozenset({METRICS})}
_REMEMBERED_TOKENS = 1024


class ScopeError(AccessError):
    """A valid token that does not allow this (HTTP 403)."""


def read_public_key(keys_dir: Path | None) -> Ed25519PublicKey | None:
    """Key that verifies tokens; None where there is none, and then no token is valid."""
    if keys_dir is None or not (keys_dir / PUBLIC_KEY_FILE).is_file():
        return None
    try:
        key = load_pem_public_key((keys_dir / PUBLIC_KEY_FILE).read_bytes())
    except (OSError, ValueError, UnsupportedAlgorithm) as error:
        raise ServingError(f"{keys_dir / PUBLIC_KEY_FILE} is not a public key in PEM form: {error}") from error
    if not isinstance(key, Ed25519PublicKey):
        raise ServingError(f"{keys_dir / PUBLIC_KEY_FILE} holds a {type(key).__name__}; tokens are signed with Ed25519")
    return key


class Gate:
    """Checks one request's right. A verified token is remembered until it expires: a signature costs more than a prediction."""

    def __init__(
        self, read_key: Callable[[], Ed25519PublicKey | None], *, tokens_required: bool, certified: bool = False,
        oidc: OidcIssuer | None = None, on_denied: Callable[[str], None] = lambda _: None,
    ) -> None:  # fmt: skip
        """`read_key`: where it finds none it is asked again with each token, since a server may start before anything that signs one.

        `certified`: services show certificates. `oidc`: an issuer whose tokens are taken beside ours.

        `on_denied` hears the reason, in two words, of each caller turned away.
        """
        self._certified = certified
        self._key, self._read_key, self._oidc, self._on_denied = read_key(), read_key, oidc, on_denied
        self._tokens_required = tokens_required
        self._verified: dict[bytes, tuple[float, frozenset[str]]] = {}

    def demand(self, service: Service | None) -> None:
        """Refuse (ScopeError) whoever is not the platform by certificate, where services show them; its token is looked at after."""
        if not self._certified:
            return
        if service is None:
            self._on_denied("no certificate")
            raise ScopeError(
                "what is served is changed by the platform alone, which shows its certificate at the handshake; none was shown"
            )
        if service.name != PLATFORM or service.until < time.time():
            self._on_denied("wrong service" if service.name != PLATFORM else "certificate ended")
            raise ScopeError(f"{_named(service)}; what is served is changed by the service {PLATFORM} alone")

    def admit(
        self, authorization: bytes | None, *, loopback: bool, any_of: tuple[str, ...], service: Service | None = None
    ) -> float:  # fmt: skip
        """Return until when the caller may, on the wall clock (0 where only this time); AccessError (401) or ScopeError (403) where not.

        Admin always needs a token; anything else may come without one from a loopback peer, unless tokens are mandatory.
        """
        try:
            if authorization is None and service is not None:
                return _admit_service(service, any_of)
            return self._admit(authorization, loopback=loopback, any_of=any_of)
        except AccessError as error:
            by_certificate = authorization is None and service is not None
            self._on_denied(
                "wrong service"
                if by_certificate
                else "no token"
                if authorization is None
                else "wrong scope"
                if isinstance(error, ScopeError)
                else "invalid token"
            )
            raise

    def _admit(self, authorization: bytes | None, *, loopback: bool, any_of: tuple[str, ...]) -> float:
        if authorization is None:
            if loopback and not self._tokens_required and PREDICT in any_of:
                return 0.0
            raise AccessError(
                f"this needs a token with scope {' or '.join(any_of)}; send 'Authorization: Bearer TOKEN' (`falaj token` mints one)"
            )
        expires, scopes = self._scopes(authorization)
        if not scopes.intersection(any_of):
            raise ScopeError(f"the token's scopes are {' '.join(sorted(scopes)) or 'none'}; this needs {' or '.join(any_of)}")
        return expires

    def _scopes(self, authorization: bytes) -> tuple[float, frozenset[str]]:
        remembered = self._verified.get(authorization)
        now = time.time()
        if remembered is not None and now < remembered[0]:
            return remembered
        scheme, _, token = authorization.partition(b" ")
        if scheme.lower() != b"bearer" or not token:
            raise AccessError("the Authorization header must read 'Bearer TOKEN'")
        if self._oidc is not None and _issuer_of(token) == self._oidc.url:
            return self._remember(authorization, self._oidc.read(token.strip().decode("latin-1")))
        self._key = self._key or self._read_key()
        if self._key is None:
            raise AccessError("this server has no public key, so no token is valid here; `falaj token` makes the key")
        return self._remember(authorization, _verify(token.strip(), self._key))

    def _remember(self, authorization: bytes, found: tuple[float, frozenset[str]]) -> tuple[float, frozenset[str]]:
        if len(self._verified) >= _REMEMBERED_TOKENS:
            self._verified.clear()
        self._verified[authorization] = found
        return found


def _admit_service(service: Service, any_of: tuple[str, ...]) -> float:
    scopes = _OF_SERVICES.get(service.name, frozenset())
    if service.until < time.time() or not scopes.intersection(any_of):
        raise ScopeError(
            f"{_named(service)}, and by it alone may {' and '.join(sorted(scopes)) or 'nothing'}; this needs {' or '.join(any_of)}"
        )
    return 0.0


def _named(service: Service) -> str:
    ended = service.until < time.time()
    return f"the certificate is of the service {service.name[:200]!r}{', but holds no more' if ended else ''}"


def _issuer_of(token: bytes) -> str:
    """Whom a token says it is from: it chooses who verifies it, nothing else."""
    try:
        return peek(token.strip().decode("latin-1"))[0]
    except TokenError:
        return ""  # the local check says what is wrong with it


def _verify(token: bytes, key: Ed25519PublicKey) -> tuple[float, frozenset[str]]:
    required = ["exp", "iat", "aud", "iss", "scope"]
    try:
        claims = jwt.decode(token, key, algorithms=[ALGORITHM], audience=AUDIENCE, issuer=ISSUER, options={"require": required})
    except jwt.InvalidTokenError as error:
        raise AccessError(f"the token is not valid: {error}; `falaj token` mints a new one") from error
    except (UnicodeError, ValueError, TypeError, RecursionError) as error:
        raise AccessError("the token is not valid: it is no JWT; `falaj token` mints one") from error
    scope = claims["scope"]
    if not isinstance(scope, str):
        raise AccessError("the token is not valid: its scope must be text; `falaj token` mints a new one")
    return float(claims["exp"]), frozenset(scope.split())
