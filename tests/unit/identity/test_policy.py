"""The policies of infra/policies, as they are shipped."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from platform_assets.errors import SpecError
from platform_assets.identity.actions import Action
from platform_assets.identity.policy import Deployment, PendingRelease, Policies, read_policies
from platform_assets.identity.principal import ROLES, Principal

FOLDER = Path(__file__).parents[3] / "infra" / "policies"
FILES = {file.name: file.read_text() for file in FOLDER.iterdir()}
MAY = {
    "viewer": {"read"},
    "operator": {"read", "launch", "terminate", "switch", "reload", "record"},
    "approver": {"read"},
    "admin": {"read", "launch", "terminate", "switch", "reload", "report", "configure", "wipe", "notebook", "record", "register"},
}
POLICIES = read_policies(FILES)


def somebody(*roles: str, tenants: tuple[str, ...] = ("hotels",), subject: str = "amal") -> Principal:
    return Principal(subject, "issuer", frozenset(roles), frozenset(tenants), 0.0)


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("action", list(Action))
def test_a_role_may_what_the_table_says_and_nothing_else(role: str, action: Action) -> None:
    assert POLICIES.allow(somebody(role), action, Deployment("hotels")) == (action in MAY[role])


@given(st.sets(st.sampled_from(ROLES)), st.sampled_from(list(Action)), st.sampled_from(["hotels", "banks", "", "**", "hotels "]))
def test_no_role_reaches_into_another_tenant(roles: set[str], action: Action, tenant: str) -> None:
    who = somebody(*roles, tenants=("hotels",))
    allowed = POLICIES.allow(who, action, Deployment(tenant))
    assert allowed == (tenant == "hotels" and any(action in MAY[role] for role in roles))


def test_whoever_runs_the_platform_reaches_every_tenant_within_the_role() -> None:
    assert POLICIES.allow(somebody("viewer", tenants=("*",)), Action.READ, Deployment("banks"))
    assert not POLICIES.allow(somebody("viewer", tenants=("*",)), Action.LAUNCH, Deployment("banks"))


@given(st.sets(st.sampled_from(ROLES)), st.sampled_from([("*",), ("hotels",), ("*", "hotels")]))
def test_nobody_approves_their_own_release(roles: set[str], tenants: tuple[str, ...]) -> None:
    amal, badr = somebody(*roles, tenants=tenants), somebody(*roles, tenants=tenants, subject="badr")
    mine = PendingRelease("d1", "hotels", requester=amal.name)
    assert not POLICIES.allow(amal, "approve", mine)
    assert POLICIES.allow(badr, "approve", mine) == bool(roles & {"approver", "admin"})


def test_a_name_with_cedar_in_it_is_a_name() -> None:
    who = somebody("viewer", subject='x" || true || "', tenants=('hotels"]',))
    assert not POLICIES.allow(who, Action.READ, Deployment("hotels"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"roles.cedar": "permit (principal, action, resource"}, "roles.cedar"),
        ({"roles.cedar": 'permit (principal, action == Action::"raed", resource);'}, "raed"),
        ({"roles.cedar": "permit (principal, action, resource) when { principal.age > 3 };"}, "age"),
        ({"falaj.cedarschema": "entity ;"}, "schema"),
    ],
)
def test_a_policy_that_does_not_fit_the_schema_is_named(change: dict[str, str], said: str) -> None:
    with pytest.raises(SpecError, match=said):
        read_policies({**FILES, **change})


def test_a_folder_without_policies_is_refused_and_permits_nothing() -> None:
    with pytest.raises(SpecError, match="are needed"):
        read_policies({})
    assert isinstance(POLICIES, Policies)
