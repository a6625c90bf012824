"""Somebody who asks: subject, roles and tenants, as an issuer's claims say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from platform_assets.errors import AccessError

ROLES = ("viewer", "operator", "approver", "admin")
EVERY_TENANT = "*"
_MOST_VALUES, _MOST_CHARACTERS = 64, 256


@dataclass(frozen=True)
class Principal:
    """Who asks. `expires` is seconds since 1970; after it the identity holds no more."""

    subject: str
    issuer: str
    roles: frozenset[str]
    tenants: frozenset[str]
    expires: float

    @property
    def name(self) -> str:
        """As audit entries name them: two issuers may have the same subject."""
        return f"{self.subject} ({self.issuer})"


def read_principal(claims: Mapping[str, Any], *, roles: str = "roles", tenants: str = "tenants") -> Principal:
    """Read verified claims; `roles` and `tenants` name the claims, with dots into nested ones (`realm_access.roles`).

    Roles that no policy knows give no right and are left out; AccessError where a claim has another shape.
    """
    return Principal(
        subject=str(claims["sub"])[:_MOST_CHARACTERS],
        issuer=str(claims["iss"]),
        roles=_names(claims, roles).intersection(ROLES),
        tenants=_names(claims, tenants),
        expires=float(claims["exp"]),
    )


def _names(claims: Mapping[str, Any], path: str) -> frozenset[str]:
    found: Any = claims
    for part in path.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    values = found.split() if isinstance(found, str) else [] if found is None else found
    if not isinstance(values, list) or len(values) > _MOST_VALUES:
        raise AccessError(f"the claim {path} must be a list of at most {_MOST_VALUES} names, or names with spaces between")
    if not all(isinstance(value, str) and 0 < len(value) <= _MOST_CHARACTERS for value in values):
        raise AccessError(f"the claim {path} must hold short names alone")
    return frozenset(values)
