"""kubectl, as these tests call it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

TENANT = "falaj-hospitality"
Kubectl = Callable[..., str]
Manifests = list[dict[str, Any]]
Render = Callable[[str], Manifests]


def as_list(manifests: Manifests) -> str:
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": manifests})


def apply(kubectl: Kubectl, manifests: Manifests, *more: str) -> str:
    """Strictly: a field that the API server does not know is refused."""
    return kubectl("apply", "--validate=strict", "-f", "-", *more, given=as_list(manifests))
