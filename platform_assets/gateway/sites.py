"""What stands behind the gateway: a Dagster web server and an MLflow server a tenant, or one of each for all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import quote

import aiohttp
import yarl

from platform_assets.identity.policy import Deployment
from resources.sockets import short_path

Kind = Literal["dagster", "mlflow"]
_CONNECT_SECONDS, _READ_SECONDS = 5.0, 600.0
_MOST_CONNECTIONS = 200
_IDLE_SECONDS = 30.0  # shorter than Dagster's web server keeps one open: a request on a closing connection would be lost


@dataclass(frozen=True)
class Site:
    """A deployment and where a server of it listens: a Unix socket.

    `prefix`: `/tenant`, or nothing where there is one for all; MLflow's ends in `/mlflow`.
    """

    deployment: Deployment
    socket: Path
    prefix: str = ""
    kind: Kind = "dagster"

    @property
    def health(self) -> str:
        """Path that answers when the server is up."""
        return "/server_info" if self.kind == "dagster" else "/health"

    @property
    def called(self) -> str:
        """What a refusal calls it."""
        return "Dagster's web server" if self.kind == "dagster" else "MLflow's server"

    def open_client(self) -> aiohttp.ClientSession:
        """Return the client for this site's plain requests, within a running loop. Nothing is decoded, followed or kept by it."""
        connector = aiohttp.UnixConnector(short_path(self.socket), limit=_MOST_CONNECTIONS, keepalive_timeout=_IDLE_SECONDS)
        timeout = aiohttp.ClientTimeout(total=_READ_SECONDS, sock_connect=_CONNECT_SECONDS)
        jar = aiohttp.DummyCookieJar()
        return aiohttp.ClientSession(connector=connector, timeout=timeout, cookie_jar=jar, auto_decompress=False, trust_env=False)

    def address(self, path: str, query: bytes = b"") -> yarl.URL:
        """Return where a decoded path within this site is asked for, encoded anew."""
        place = quote(self.prefix + path, safe="/:@!$&'()*+,;=~-._")
        return yarl.URL(f"http://{self.kind}{place}" + (f"?{query.decode('latin-1')}" if query else ""), encoded=True)


def find_site(sites: Sequence[Site], path: str) -> tuple[Site, str] | None:
    """Return the site of a path and the path within it; None where it is nobody's. A prefix must be of whole parts; the longest has it."""
    for site in sorted(sites, key=lambda site: -len(site.prefix)):
        if path == site.prefix or path.startswith(f"{site.prefix}/"):
            return site, path[len(site.prefix) :] or "/"
    return None
