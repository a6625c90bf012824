"""Who asks, and may they: the order of the checks, and what the audit log hears. The checks themselves are in `identity`."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from platform_assets.errors import AccessError, ForbiddenError
from platform_assets.identity.actions import Action
from platform_assets.identity.limits import Buckets, Lockout
from platform_assets.identity.policy import Deployment, Policies
from platform_assets.identity.principal import Principal, read_principal
from platform_assets.identity.sessions import Sealer, Session, open_session
from platform_assets.identity.tokens import TokenError
from platform_assets.ports import AuditLog
from resources.issuers import Verifier
from resources.once import UsedNames
from resources.tokens import GATEWAY_AUDIENCE

_REMEMBERED = 4096
_DENIALS_SECONDS = 60.0


class BusyError(AccessError):
    """Too many requests, or too many failures from this address; `wait_seconds` says how long it lasts."""

    def __init__(self, message: str, *, wait_seconds: float) -> None:
        super().__init__(message)
        self.wait_seconds = wait_seconds


@dataclass(frozen=True)
class Claims:
    """Which claims of the issuer name roles and tenants, and whom its tokens must be for."""

    roles: str = "roles"
    tenants: str = "tenants"
    audience: str = GATEWAY_AUDIENCE


@dataclass
class Guard:
    """Holds what the checks need to remember. One event loop; nothing here is shared with threads."""

    verifier: Verifier
    sealer: Sealer
    policies: Policies
    audit: AuditLog
    used: UsedNames
    claims: Claims = Claims()
    buckets: Buckets = field(default_factory=lambda: Buckets(per_second=100, burst=400))  # a page of the web UI asks thirty times at once
    lockout: Lockout = field(default_factory=Lockout)
    _verified: OrderedDict[bytes, Principal] = field(default_factory=OrderedDict)
    _denied: Counter[tuple[str, str]] = field(default_factory=Counter)
    _told: float = -_DENIALS_SECONDS

    async def identify(self, *, authorization: str | None, cookie: str | None, address: str) -> tuple[Principal, str]:
        """Return who asks and the id of their session (nothing for a token).

        AccessError where it is nobody known, BusyError where they must wait.
        """
        if authorization is not None:
            principal, session = await self._from_token(authorization, address), ""
        elif cookie is not None:
            opened = self.open_cookie(cookie)
            principal, session = opened.principal, opened.id
        else:
            raise AccessError("this needs a login, or a token in the header 'Authorization: Bearer TOKEN' (`falaj token --role` mints one)")
        self.take(principal.name)
        return principal, session

    def open_cookie(self, cookie: str) -> Session:
        """Return the session of a cookie that was not ended."""
        session = open_session(self.sealer, cookie)
        if session.id in self.used:
            raise AccessError("the session was ended; log in again")
        return session

    def take(self, name: str) -> None:
        """Count one request of somebody; BusyError where there were too many."""
        wait = self.buckets.wait_seconds(name, now=time.monotonic())
        if wait:
            raise BusyError("too many requests; ask again later", wait_seconds=wait)

    async def _from_token(self, authorization: str, address: str) -> Principal:
        digest = hashlib.sha256(authorization.encode("latin-1", "replace")).digest()
        known = self._verified.get(digest)
        if known is not None and time.time() < known.expires:
            return known
        self.check_lock(address)
        try:
            claims = await self.verifier.check(_bearer(authorization), audience=self.claims.audience)
            principal = read_principal(claims, roles=self.claims.roles, tenants=self.claims.tenants)
        except TokenError as error:
            await self.failed(error.reason, address)
            raise
        self._verified[digest] = principal
        while len(self._verified) > _REMEMBERED:
            self._verified.popitem(last=False)
        return principal

    def check_lock(self, address: str) -> None:
        """Raise BusyError where this address failed too often."""
        wait = self.lockout.wait_seconds(address, now=time.monotonic())
        if wait:
            raise BusyError("too many logins or tokens from this address were not valid; try again later", wait_seconds=wait)

    async def failed(self, reason: str, address: str) -> None:
        """Count a login or token that was not valid; the one that locks the address is audited by itself."""
        if self.lockout.fail(address, now=time.monotonic()):
            await self.write("locked_out", subject="gateway", actor=address, detail={"reason": reason})
        await self.count_denial("nobody known", reason)

    async def use_once(self, name: str, *, until: float, address: str) -> None:
        """Use up a link or a state; AccessError where it was used before."""
        self.check_lock(address)
        if not await asyncio.to_thread(self.used.use, name, until=until, now=time.time()):
            await self.failed("replayed", address)
            raise TokenError("replayed", "this login was used already; begin again")

    async def decide(self, principal: Principal, actions: Iterable[Action], deployment: Deployment, what: Mapping[str, Any]) -> None:
        """Let pass what the policies permit, after it was audited unless it only reads; ForbiddenError otherwise."""
        wanted = sorted(set(actions))
        denied = [action for action in wanted if not self.policies.allow(principal, action, deployment)]
        if denied:
            await self.count_denial(principal.name, f"{', '.join(denied)} in {deployment.tenant}")
            raise ForbiddenError(f"you may not {', '.join(denied)} here; your roles are {', '.join(sorted(principal.roles)) or 'none'}")
        if wanted != [Action.READ]:
            detail = {"actions": [str(action) for action in wanted], **what}
            await self.write("gateway_passed", subject=f"deployment/{deployment.tenant}", actor=principal.name, detail=detail)

    async def count_denial(self, actor: str, reason: str) -> None:
        """Count somebody turned away: the first is audited at once, the others of its minute together with the next."""
        self._denied[actor, reason] += 1
        if time.monotonic() - self._told >= _DENIALS_SECONDS or len(self._denied) > _REMEMBERED:
            await self.tell_denials()

    async def tell_denials(self) -> None:
        """Audit what was counted since the last time."""
        counted, self._denied, self._told = self._denied, Counter(), time.monotonic()
        if counted:
            detail = {"counts": [{"who": who, "why": why, "times": times} for (who, why), times in counted.most_common(100)]}
            await self.write("denied", subject="gateway", actor="gateway", detail=detail)

    async def write(self, action: str, *, subject: str, actor: str, detail: Mapping[str, Any]) -> None:
        """Write one audit entry; what cannot be audited is not done."""
        await asyncio.to_thread(self.audit.append, action, subject=subject, actor=actor, detail=detail)


def _bearer(authorization: str) -> str:
    scheme, _, token = authorization.partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise TokenError("malformed", "the Authorization header must read 'Bearer TOKEN'")
    return token.strip()
