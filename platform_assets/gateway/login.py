"""How a browser gets its session: OIDC's code flow with PKCE (RFC 7636), or this home's own link, good once. And how it ends."""

from __future__ import annotations

import asyncio
import html
import secrets
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from authlib.common.errors import AuthlibBaseError
from authlib.integrations.requests_client import OAuth2Session
from requests import RequestException
from starlette.requests import Request
from starlette.responses import Response

from platform_assets.errors import AccessError, RequestError
from platform_assets.gateway import answers
from platform_assets.gateway.guard import BusyError, Guard
from platform_assets.identity.doors import find_door
from platform_assets.identity.principal import Principal, read_principal
from platform_assets.identity.sessions import SESSION_SECONDS, seal_session
from resources.issuers import OidcIssuer

ROOM = "/auth"
_LOGIN_SECONDS = 300.0
_TIMEOUT_SECONDS = 10.0
_ONE_CLICK = "<p>Run <code>falaj up</code> (or <code>make ui</code>) in this home: it prints a link that logs you in.</p>"


@dataclass(frozen=True)
class OidcClient:
    """This gateway as the issuer knows it."""

    issuer: OidcIssuer
    client_id: str
    secret_file: Path | None
    scope: str = "openid profile"

    def session(self, redirect: str) -> OAuth2Session:
        """Return the library's client; the secret is read anew, so that it can be changed."""
        secret = self.secret_file.read_text().strip() if self.secret_file else None
        return OAuth2Session(
            self.client_id, secret, scope=self.scope, redirect_uri=redirect, code_challenge_method="S256",
            token_endpoint_auth_method="client_secret_basic" if secret else "none",
        )  # fmt: skip


@dataclass(frozen=True)
class Login:
    """The routes under /auth. `url`: where people reach the gateway, without a slash at the end."""

    guard: Guard
    url: str
    oidc: OidcClient | None = None

    @property
    def secure(self) -> bool:
        """Whether the gateway is reached by TLS: then the cookie travels by it alone."""
        return self.url.startswith("https:")

    @property
    def cookie(self) -> str:
        """Name of the session's cookie; browsers tell ports apart by nothing else."""
        return "__Host-falaj" if self.secure else f"falaj_{self.url.rsplit(':', 1)[-1]}"

    async def begin(self, request: Request) -> Response:
        """Send the browser to the issuer, or say how to get a link."""
        if self.oidc is None:
            return answers.page("Log in to Falaj", _ONE_CLICK, status=401)
        metadata = await self.oidc.issuer.metadata()
        state, nonce, verifier = secrets.token_urlsafe(24), secrets.token_urlsafe(24), secrets.token_urlsafe(48)
        session = self.oidc.session(f"{self.url}{ROOM}/callback")
        address, _ = session.create_authorization_url(metadata["authorization_endpoint"], state=state, nonce=nonce, code_verifier=verifier)
        reply = answers.go(address)
        values = {"state": state, "nonce": nonce, "verifier": verifier, "next": safe_next(request.query_params.get("next", "/"))}
        sealed = self.guard.sealer.seal("login", values, expires=time.time() + _LOGIN_SECONDS)
        reply.set_cookie(
            f"{self.cookie}_login", sealed, max_age=int(_LOGIN_SECONDS), path="/", httponly=True, secure=self.secure, samesite="lax"
        )
        return reply

    async def callback(self, request: Request) -> Response:
        """Exchange the code, verify the ID token (signature, issuer, audience, nonce), begin a session."""
        if self.oidc is None:
            raise AccessError("no OIDC issuer is set; FALAJ_OIDC_ISSUER names one")
        address = client_address(request)
        begun = self.guard.sealer.open("login", request.cookies.get(f"{self.cookie}_login", ""))
        if not secrets.compare_digest(begun["state"].encode(), request.query_params.get("state", "").encode()):
            await self.guard.failed("wrong state", address)
            raise AccessError("this login was not begun in this browser; begin again")
        await self.guard.use_once(f"state:{begun['state']}", until=float(begun["exp"]), address=address)
        token = await asyncio.to_thread(self._exchange, request.query_params.get("code", ""), begun["verifier"])
        claims = await self.oidc.issuer.check(token, audience=self.oidc.client_id)
        if not secrets.compare_digest(str(claims.get("nonce", "")).encode(), begun["nonce"].encode()):
            await self.guard.failed("replayed", address)
            raise AccessError("the issuer's answer belongs to another login; begin again")
        names = self.guard.claims
        reply = await self._enter(read_principal(claims, roles=names.roles, tenants=names.tenants), to=begun["next"])
        reply.delete_cookie(f"{self.cookie}_login", path="/", httponly=True, secure=self.secure, samesite="lax")
        return reply

    def _exchange(self, code: str, verifier: str) -> str:
        assert self.oidc is not None  # asked for by `callback`, which checked
        endpoint = self.oidc.issuer.known["token_endpoint"]
        try:
            with self.oidc.session(f"{self.url}{ROOM}/callback") as session:
                session.trust_env = False
                found = session.fetch_token(endpoint, code=code, code_verifier=verifier, timeout=_TIMEOUT_SECONDS)
        except (AuthlibBaseError, RequestException, ValueError) as error:
            raise AccessError(f"the issuer did not take the login ({type(error).__name__}); begin again") from error
        if not isinstance(found.get("id_token"), str):
            raise AccessError("the issuer's answer holds no ID token; the scope openid must be allowed to this client")
        return found["id_token"]

    async def ticket(self, request: Request) -> Response:
        """Begin a session by a link that `falaj up` printed: signed by this home, good for an hour and once."""
        address = client_address(request)
        try:
            self.guard.check_lock(address)
            claims = await self.guard.verifier.redeem(request.query_params.get("t", ""))
        except AccessError as error:
            if not isinstance(error, BusyError):
                await self.guard.failed("link", address)
            return answers.page("This link is not good any more", f"<p>{html.escape(str(error))}.</p>{_ONE_CLICK}", status=401)
        return await self._enter(read_principal(claims), to="/")

    async def _enter(self, principal: Principal, *, to: str) -> Response:
        sealed, session = seal_session(self.guard.sealer, principal, now=time.time())
        detail = {"session": session.id, "roles": sorted(principal.roles), "tenants": sorted(principal.tenants)}
        await self.guard.write("login", subject="gateway", actor=principal.name, detail=detail)
        reply = answers.go(to)
        reply.set_cookie(self.cookie, sealed, max_age=SESSION_SECONDS, path="/", httponly=True, secure=self.secure, samesite="lax")
        return reply

    async def show(self, request: Request) -> Response:
        """Say who is logged in, with a button that ends it."""
        found = self.guard.open_cookie(request.cookies.get(self.cookie, "")).principal
        said = [("Roles", sorted(found.roles)), ("Tenants", sorted(found.tenants))]
        lines = "".join(f"<p>{name}: {html.escape(', '.join(values)) or 'none'}</p>" for name, values in said)
        button = f'<form method=post action="{ROOM}/logout"><button>Log out</button></form>'
        return answers.page(found.name, f'{lines}{button}<p><a href="/">Web UI</a></p>')

    async def end(self, request: Request) -> Response:
        """End the session, here and in every copy of its cookie."""
        session = self.guard.open_cookie(request.cookies.get(self.cookie, ""))
        now, until = time.time(), session.principal.expires
        await asyncio.to_thread(self.guard.used.use, session.id, until=until, now=now)
        await self.guard.write("logout", subject="gateway", actor=session.principal.name, detail={"session": session.id})
        reply = answers.page("You are logged out", f'<p><a href="{ROOM}/login">Log in again</a></p>')
        reply.delete_cookie(self.cookie, path="/", httponly=True, secure=self.secure, samesite="lax")
        return reply


def safe_next(path: str) -> str:
    """Return a path of this gateway to go on to, and the first page where it is anything else, such as another site's address."""
    place, _, query = path.partition("?")
    try:
        find_door("GET", place)
    except RequestError:
        return "/"
    return quote(place, safe="/:@!$&'()*+,;=~-._") + (f"?{quote(query, safe='=&%+-._~')}" if query else "")


def client_address(request: Request) -> str:
    """Return whom the connection comes from; forwarded addresses are the caller's to invent, so none is believed."""
    return request.client.host if request.client else "unix"
