"""Advisories asked of a service that speaks OSV's protocol (https://google.github.io/osv.dev/api/)."""

from __future__ import annotations

import json
import re
import time
from typing import TYPE_CHECKING, Any

import httpx

from platform_assets.errors import ScanError
from platform_assets.scans.inventory import PYPI, Package

if TYPE_CHECKING:
    from collections.abc import Sequence

    from platform_assets.scans.advisories import Record

PUBLIC_SERVICE = "https://api.osv.dev"
KNOWN_BAD = Package(PYPI, "jinja2", "2.4.1")  # the example of OSV's own documentation: a service that knows nothing of it knows nothing
_BATCH = 1000  # the protocol's limit
_MOST_PAGES, _MOST_BYTES = 100, 64 << 20
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]*")


class AdvisoryService:
    """Asks for all packages in batches, then for each advisory once; `timeout_seconds` is for a whole look-up."""

    def __init__(self, url: str, *, timeout_seconds: float) -> None:
        self._url, self._timeout = url.rstrip("/"), timeout_seconds

    def look_up(self, packages: Sequence[Package]) -> dict[Package, list[Record]]:
        """Return the records about each package; ScanError where any answer is missing, malformed or late."""
        until = time.monotonic() + self._timeout
        with httpx.Client(timeout=self._timeout, trust_env=True) as client:
            asked = [*packages, *({KNOWN_BAD} - set(packages))]
            ids = self._ids(client, asked, until)
            if not ids[KNOWN_BAD]:
                raise ScanError(
                    f"{self._url} answers, but knows no advisory about {KNOWN_BAD.name} {KNOWN_BAD.version}, which is full of holes: "
                    "it has no advisories, so nothing was audited."
                )
            records = {one: self._record(client, one, until) for one in sorted({one for package in packages for one in ids[package]})}
        return {package: [records[one] for one in ids[package]] for package in packages}

    def _ids(self, client: httpx.Client, packages: Sequence[Package], until: float) -> dict[Package, list[str]]:
        found: dict[Package, list[str]] = {package: [] for package in packages}
        queue: list[tuple[Package, str | None]] = [(package, None) for package in packages]
        for _ in range(_MOST_PAGES * (len(packages) // _BATCH + 1)):
            if not queue:
                return found
            batch, queue = queue[:_BATCH], queue[_BATCH:]
            answer = self._ask(client, "POST", "/v1/querybatch", until, {"queries": [_query(*one) for one in batch]})
            results = answer.get("results")
            if not isinstance(results, list) or len(results) != len(batch):
                raise self._malformed(
                    f"{len(batch)} packages were asked about and {len(results) if isinstance(results, list) else 'no'} answers came"
                )
            for (package, _), result in zip(batch, results, strict=True):
                entries = result.get("vulns", []) if isinstance(result, dict) else None
                names = [entry.get("id") if isinstance(entry, dict) else None for entry in entries] if isinstance(entries, list) else [None]
                if not all(isinstance(name, str) and _ID.fullmatch(name) for name in names):
                    raise self._malformed(f"the answer about {package.name} {package.version} is {str(result)[:100]}")
                found[package] += [str(name) for name in names]
                if result.get("next_page_token"):
                    queue.append((package, str(result["next_page_token"])))
        raise self._malformed(f"there is still another page after {_MOST_PAGES}")

    def _record(self, client: httpx.Client, name: str, until: float) -> Record:
        found = self._ask(client, "GET", f"/v1/vulns/{name}", until)
        if found.get("id") != name:
            raise self._malformed(f"asked for {name} it gives {str(found.get('id'))[:100]}")
        return found

    def _ask(self, client: httpx.Client, method: str, path: str, until: float, body: Any = None) -> dict[str, Any]:
        try:
            with client.stream(method, self._url + path, json=body) as response:
                if response.status_code != httpx.codes.OK:
                    raise self._mute(f"{method} {path} is answered with {response.status_code}")
                content = bytearray()
                for part in response.iter_bytes():  # a server that drips never lets a read run into its limit
                    content += part
                    if time.monotonic() > until:
                        raise self._mute(f"{method} {path} is not answered whole within {self._timeout:g} s")
                    if len(content) > _MOST_BYTES:
                        raise self._malformed(f"{method} {path} is answered with more than {_MOST_BYTES} bytes")
            found = json.loads(content)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise self._mute(f"{type(error).__name__}: {error}") from error
        except ValueError as error:
            raise self._malformed(f"{method} {path} is not answered with JSON") from error
        if not isinstance(found, dict):
            raise self._malformed(f"{method} {path} is answered with JSON that is no object")
        return found

    def _mute(self, why: str) -> ScanError:
        return ScanError(
            f"No advisories from {self._url} ({why}), so nothing was audited. Name a service of OSV's protocol that can be reached, "
            "or a folder of OSV records, in ADVISORIES."
        )

    def _malformed(self, why: str) -> ScanError:
        return ScanError(f"{self._url} does not answer as OSV's protocol says ({why}), so nothing was audited.")


def _query(package: Package, page: str | None) -> dict[str, Any]:
    query = {"package": {"ecosystem": package.ecosystem, "name": package.name}, "version": package.version}
    return {**query, "page_token": page} if page else query
