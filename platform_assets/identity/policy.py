"""Whether somebody may: one Cedar decision over who asks, what is done and to what. Denied by default; no policy is written in Python."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import cedarpy

from platform_assets.errors import Fault, SpecError
from platform_assets.identity.principal import Principal

_REMEMBERED = 4096


@dataclass(frozen=True)
class Deployment:
    """A tenant's code location and web server."""

    tenant: str

    def entity(self) -> dict[str, Any]:
        """As Cedar has it."""
        return {"uid": _uid("Deployment", self.tenant), "attrs": {"tenant": _reference("Tenant", self.tenant)}, "parents": []}


@dataclass(frozen=True)
class PendingRelease:
    """A release that waits for a second person: its digest, its model's tenant, who asked for it (`Principal.name`)."""

    digest: str
    tenant: str
    requester: str

    def entity(self) -> dict[str, Any]:
        """As Cedar has it."""
        attributes = {"tenant": _reference("Tenant", self.tenant), "requester": _reference("User", self.requester)}
        return {"uid": _uid("Release", self.digest), "attrs": attributes, "parents": []}


@dataclass
class Policies:
    """Cedar policies of a folder, checked against their schema. Decisions are remembered: they depend on nothing but their arguments."""

    _policies: cedarpy.PolicySet
    _schema: cedarpy.Schema
    _decided: dict[tuple, bool] = field(default_factory=dict)

    def allow(self, principal: Principal, action: str, resource: Deployment | PendingRelease) -> bool:
        """Return whether the policies permit it and none forbids it."""
        key = (principal.name, principal.roles, principal.tenants, action, resource)
        if key not in self._decided:
            if len(self._decided) >= _REMEMBERED:
                self._decided.clear()
            self._decided[key] = self._decide(principal, action, resource)
        return self._decided[key]

    def _decide(self, principal: Principal, action: str, resource: Deployment | PendingRelease) -> bool:
        groups = [*(_uid("Role", role) for role in principal.roles), *(_uid("Tenant", tenant) for tenant in principal.tenants)]
        user = {"uid": _uid("User", principal.name), "attrs": {}, "parents": groups}
        target = resource.entity()
        others = [{"uid": uid, "attrs": {}, "parents": []} for uid in groups]
        request = {"principal": user["uid"], "action": _uid("Action", str(action)), "resource": target["uid"], "context": {}}
        answer = cedarpy.is_authorized(request, self._policies, [user, target, *others], self._schema)
        return bool(answer.allowed) and not answer.diagnostics.errors


def read_policies(files: Mapping[str, str]) -> Policies:
    """Return the policies of these files, name to text; one is the schema (`.cedarschema`). SpecError names the file that does not hold."""
    schemas = [text for name, text in files.items() if name.endswith(".cedarschema")]
    texts = {name: text for name, text in files.items() if name.endswith(".cedar")}
    if len(schemas) != 1 or not texts:
        found = ", ".join(sorted(files)) or "none"
        raise SpecError([Fault("policies", "", f"one .cedarschema file and at least one .cedar file are needed; found: {found}")])
    try:
        schema = cedarpy.Schema.from_str(schemas[0])
    except ValueError as error:
        raise SpecError([Fault("policies", "schema", f"the schema is not one: {error}")]) from error
    faults = [Fault(name, "", fault) for name, text in sorted(texts.items()) for fault in _faults(text, schemas[0])]
    if faults:
        raise SpecError(faults)
    return Policies(cedarpy.PolicySet.from_str("\n".join(texts[name] for name in sorted(texts))), schema)


def _faults(text: str, schema: str) -> list[str]:
    try:
        return [str(error) for error in cedarpy.validate_policies(text, schema).errors]
    except ValueError as error:
        return [f"it cannot be read: {error}"]


def _uid(kind: str, name: str) -> dict[str, str]:
    return {"type": kind, "id": name}


def _reference(kind: str, name: str) -> dict[str, Any]:
    return {"__entity": _uid(kind, name)}
