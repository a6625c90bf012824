"""A browser's session: a signed cookie, opened by the gateway that sealed it and by nobody else. Ending one early is the gateway's."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Any

import jwt

from platform_assets.errors import AccessError
from platform_assets.identity.principal import Principal

SESSION_SECONDS = 8 * 3600
_ALGORITHM = "HS256"  # one key, one holder: nobody else has to check these


@dataclass(frozen=True)
class Session:
    """Who is logged in, and the id by which the session is ended."""

    id: str
    principal: Principal


@dataclass(frozen=True)
class Sealer:
    """Seals small values into texts that a browser may hold but not alter. `key`: 32 random bytes."""

    key: bytes

    def seal(self, purpose: str, values: dict[str, Any], *, expires: float) -> str:
        """Return the text; it is good for this purpose alone."""
        return jwt.encode({**values, "aud": purpose, "exp": int(expires)}, self.key, algorithm=_ALGORITHM)

    def open(self, purpose: str, sealed: str) -> dict[str, Any]:
        """Return what was sealed; AccessError where it is not ours, of another purpose or too old."""
        try:
            return jwt.decode(sealed, self.key, algorithms=[_ALGORITHM], audience=purpose, options={"require": ["exp"]})
        except (jwt.PyJWTError, UnicodeError, ValueError, TypeError, RecursionError):
            raise AccessError("the session is over or not ours; log in again") from None


def seal_session(sealer: Sealer, principal: Principal, *, now: float) -> tuple[str, Session]:
    """Begin a session of a working day at most, whatever the issuer's token allowed."""
    session = Session(secrets.token_urlsafe(16), principal)
    values = {
        "sid": session.id, "sub": principal.subject, "idp": principal.issuer,
        "roles": sorted(principal.roles), "tenants": sorted(principal.tenants),
    }  # fmt: skip
    return sealer.seal("session", values, expires=now + SESSION_SECONDS), session


def open_session(sealer: Sealer, cookie: str) -> Session:
    """Return the session of a cookie; AccessError where it is none of ours."""
    found = sealer.open("session", cookie)
    principal = Principal(found["sub"], found["idp"], frozenset(found["roles"]), frozenset(found["tenants"]), float(found["exp"]))
    return Session(found["sid"], principal)
