"""What stands behind the gateway: one Dagster web server a tenant, or one for all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import aiohttp
import yarl

from platform_assets.identity.policy import Deployment
from resources.sockets import short_path

_CONNECT_SECONDS, _READ_SECONDS = 5.0, 600.0
_MOST_CONNECTIONS = 200
_IDLE_SECONDS = 30.0  # shorter than Dagster's web server keeps one open: a request on a closing connection would be lost


@dataclass(frozen=True)
class Site:
    """A deployment and where its web server listens: a Unix socket. `prefix`: `/tenant`, or nothing where there is one for all."""

    deployment: Deployment
    socket: Path
    prefix: str = ""

    def open_client(self) -> aiohttp.ClientSession:
        """Return the client for this site's plain requests, within a running loop. Nothing is decoded, followed or kept by it."""
        connector = aiohttp.UnixConnector(short_path(self.socket), limit=_MOST_CONNECTIONS, keepalive_timeout=_IDLE_SECONDS)
        timeout = aiohttp.ClientTimeout(total=_READ_SECONDS, sock_connect=_CONNECT_SECONDS)
        jar = aiohttp.DummyCookieJar()
        return aiohttp.ClientSession(connector=connector, timeout=timeout, cookie_jar=jar, auto_decompress=False, trust_env=False)

    def address(self, path: str, query: bytes = b"") -> yarl.URL:
        """Return where a decoded path within this site is asked for, encoded anew."""
        place = quote(self.prefix + path, safe="/:@!$&'()*+,;=~-._")
        return yarl.URL(f"http://dagster{place}" + (f"?{query.decode('latin-1')}" if query else ""), encoded=True)


def find_site(sites: Sequence[Site], path: str) -> tuple[Site, str] | None:
    """Return the site of a path and the path within it; None where it is nobody's. A tenant's name must be a whole first part."""
    for site in sites:
        if path == site.prefix or path.startswith(f"{site.prefix}/"):
            return site, path[len(site.prefix) :] or "/"
    return None
