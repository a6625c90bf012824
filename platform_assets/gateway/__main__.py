"""The gateway's process: `python -m platform_assets.gateway TENANT=SOCKET ...`, `*` for one deployment of all tenants.

`TENANT/mlflow=SOCKET` is the MLflow server of that deployment.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

import uvicorn

from platform_assets.errors import FalajError
from platform_assets.gateway.app import Gateway
from platform_assets.gateway.guard import Claims, Guard
from platform_assets.gateway.inbox import Inbox
from platform_assets.gateway.login import Login, OidcClient
from platform_assets.gateway.sites import Site
from platform_assets.identity.doors import MLFLOW
from platform_assets.identity.policy import Deployment, read_policies
from platform_assets.identity.principal import EVERY_TENANT
from platform_assets.identity.sessions import Sealer
from platform_assets.logs import event, say, start_logging, uvicorn_logging
from resources.events import INBOX, open_queue
from resources.home import ensure_secret
from resources.issuers import LocalIssuer, OidcIssuer
from resources.once import UsedNames
from resources.parts import open_audit
from resources.senders import read_senders
from resources.settings import Settings, read_settings

SESSION_KEY_FILE = "session.key"
_IDLE_SECONDS, _STOP_SECONDS = 30, 2
_MOST_CONNECTIONS = 1000
_MOST_MESSAGE = 1 << 20  # bytes of one websocket message from a browser


def build_gateway(settings: Settings, sites: Sequence[str]) -> Gateway:
    """Bind a gateway to this home and to its sites, `TENANT=SOCKET` or `TENANT/mlflow=SOCKET` each."""
    wanted, home = settings.identity, settings.home
    url = wanted.web_url or f"http://127.0.0.1:{settings.web_port}"
    issuer = OidcIssuer(wanted.issuer) if wanted.issuer else None
    folder = wanted.policies
    guard = Guard(
        verifier=issuer or LocalIssuer(home.keys),
        sealer=Sealer(ensure_secret(home.keys / SESSION_KEY_FILE)),
        policies=read_policies({file.name: file.read_text() for file in sorted(folder.iterdir())} if folder.is_dir() else {}),
        audit=open_audit(settings),
        used=UsedNames(home.used),
        claims=Claims(wanted.roles, wanted.tenants, wanted.audience),
    )
    client = OidcClient(issuer, wanted.client_id, wanted.client_secret_file) if issuer else None
    hosts = {urlsplit(url).netloc.lower(), f"127.0.0.1:{settings.web_port}", f"localhost:{settings.web_port}"}
    return Gateway(
        [_read_site(text) for text in sites], guard, Login(guard, url, client), frozenset(hosts), inbox=_build_inbox(settings, guard)
    )


def _build_inbox(settings: Settings, guard: Guard) -> Inbox | None:
    if settings.senders is None:
        return None
    return Inbox(read_senders(settings.senders), open_queue(INBOX, url=settings.events, path=settings.home.events), guard)


def _read_site(text: str) -> Site:
    name, _, place = text.partition("=")
    tenant, slash, _ = name.partition(MLFLOW)
    prefix = "" if tenant == EVERY_TENANT else f"/{tenant}"
    return Site(Deployment(tenant), Path(place), *((prefix + MLFLOW, "mlflow") if slash else (prefix, "dagster")))


def main() -> None:
    """Serve on loopback until SIGTERM. TLS and other machines are a proxy's, which FALAJ_WEB_URL names."""
    settings = read_settings()
    start_logging("gateway", settings.log_form)
    try:
        app = build_gateway(settings, sys.argv[1:]).app()
    except FalajError as error:
        say(f"gateway: {error}")
        sys.exit(1)
    event(f"the gateway listens on port {settings.web_port}")
    uvicorn.run(
        app, host="127.0.0.1", port=settings.web_port, log_level="warning", access_log=False, server_header=False, proxy_headers=False,
        limit_concurrency=_MOST_CONNECTIONS, timeout_keep_alive=_IDLE_SECONDS, timeout_graceful_shutdown=_STOP_SECONDS,
        ws_max_size=_MOST_MESSAGE, **uvicorn_logging(),
    )  # fmt: skip


if __name__ == "__main__":
    main()
