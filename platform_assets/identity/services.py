"""Services known by certificate: the name that a verified certificate bears. What each may is the asked server's; files are in `resources`.

A name is a SPIFFE ID, the one URI among a certificate's alternative names (SPIFFE X.509-SVID, 2 and 4). Each home, and each tenant of a
cluster, has an authority of its own, so a name holds within it alone.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

TRUST_DOMAIN = "falaj.internal"  # .internal is kept for private use (ICANN resolution 2024.07.29.06)
PLATFORM, MONITORING, INFERENCE = "platform", "monitoring", "inference"
SERVICES = (PLATFORM, MONITORING, INFERENCE)
_PREFIX = f"spiffe://{TRUST_DOMAIN}/"


@dataclass(frozen=True)
class Service:
    """Who holds the key of a certificate that was verified, and until when that says anything, on the wall clock."""

    name: str
    until: float


def uri_of(name: str) -> str:
    """Return the URI that a service's certificate bears."""
    return _PREFIX + name


def read_service(certificate: Mapping[str, Any] | None) -> Service | None:
    """Return whose a verified certificate is, given as `ssl` decodes it; None where none was shown.

    A certificate without a name of ours, or with several, has as its name what it bears: no server knows a service of that name.
    """
    if not certificate:
        return None
    uris = [value for kind, value in certificate.get("subjectAltName", ()) if kind == "URI"]
    name = uris[0].removeprefix(_PREFIX) if len(uris) == 1 and uris[0].startswith(_PREFIX) else " ".join(uris) or "without a name"
    return Service(name, ssl.cert_time_to_seconds(certificate["notAfter"]))
