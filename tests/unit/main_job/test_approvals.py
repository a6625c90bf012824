"""Two people and a release that waits: what the command says, and what the log has."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from pipeline.tiny import DEFS, MODEL

from platform_assets.components.serving_steps import deploy_release
from platform_assets.errors import AccessError, ForbiddenError, ReleaseError, StateError
from platform_assets.main_job.approvals import approve_release
from platform_assets.main_job.operations import open_parts
from platform_assets.specs.records import Release
from resources.issuers import shell_user
from resources.settings import Home, Settings
from resources.tokens import mint_identity

DIGEST = "d" * 64
RELEASE = f"{MODEL}@{DIGEST[:12]}"
TENANT = "tests"


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    defs = shutil.copytree(DEFS, tmp_path / "defs")
    file = defs / "models" / MODEL / "defs.yaml"
    file.write_text(file.read_text().rstrip() + "\n  governance: {approval: four-eyes}\n")
    for name in ("FALAJ_HOME", "DAGSTER_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    return Settings(Home(tmp_path / "home"), "laptop", Path(defs), webhook_url=None, serve_port=0, web_port=0)


def release(settings: Settings, *, requester: str) -> None:
    detail = {"digest": DIGEST, "mlflow_version": "1", "keys": [], "requester": requester}
    open_parts(settings, MODEL).audit.append("release", subject=f"model/{MODEL}", actor="run/1", detail=detail)


def token(settings: Settings, subject: str, *roles: str, tenants: tuple[str, ...] = (TENANT,)) -> Path:
    file = settings.home.root / f"{subject}.token"
    file.write_text(mint_identity(settings.home.keys, roles=roles, tenants=tenants, subject=subject, seconds=60))
    return file


def log(settings: Settings) -> list[tuple[str, str]]:
    return [(entry["action"], entry["actor"]) for entry in open_parts(settings, MODEL).audit.entries(subject=f"model/{MODEL}")]


def test_who_asked_cannot_approve_and_a_second_person_can(settings):
    release(settings, requester="amal (falaj)")
    with pytest.raises(ForbiddenError, match="who asked for a release cannot approve it"):
        approve_release(settings, RELEASE, token_file=token(settings, "amal", "admin", "approver"))
    assert approve_release(settings, RELEASE, token_file=token(settings, "badr", "approver")) == (MODEL, "badr (falaj)")
    assert log(settings)[1:] == [("second_person_refused", "amal (falaj)"), ("release_approved", "badr (falaj)")]


def test_asking_again_under_another_name_does_not_help(settings):
    for requester in ("amal (falaj)", "nightly schedule"):
        release(settings, requester=requester)
    with pytest.raises(ForbiddenError):
        approve_release(settings, RELEASE, token_file=token(settings, "amal", "admin"))


def test_the_user_of_the_shell_is_a_person_too(settings):
    release(settings, requester=shell_user().name)
    with pytest.raises(ForbiddenError):
        approve_release(settings, RELEASE, token_file=None)
    with pytest.raises(AccessError, match="FALAJ_OIDC_ISSUER"):
        approve_release(replace(settings, identity=replace(settings.identity, issuer="https://idp")), RELEASE, token_file=None)


@pytest.mark.parametrize(("roles", "tenants"), [(("operator",), (TENANT,)), (("approver",), ("others",)), ((), ("*",))])
def test_without_the_role_or_the_tenant_it_is_refused(settings, roles, tenants):
    release(settings, requester="amal (falaj)")
    with pytest.raises(ForbiddenError, match="no policy lets you"):
        approve_release(settings, RELEASE, token_file=token(settings, "badr", *roles, tenants=tenants))


def test_what_is_asked_wrongly_is_told(settings):
    release(settings, requester="amal (falaj)")
    with pytest.raises(ReleaseError, match="has no release 000"):
        approve_release(settings, f"{MODEL}@000", token_file=None)
    with pytest.raises(StateError, match="--by"):
        approve_release(settings, RELEASE, token_file=None, by="badr")
    with pytest.raises(AccessError, match="cannot be read"):
        approve_release(settings, RELEASE, token_file=settings.home.root / "nothing")


def test_a_release_waits_at_the_gate_until_a_second_person_spoke(settings):
    parts = open_parts(settings, MODEL)
    said: list[str] = []
    found = Release(MODEL, DIGEST[:12], DIGEST, "int8", "1", {}, "t")
    step = SimpleNamespace(parts=parts, read=lambda key, cls: found, say=said.append)
    model = parts.catalogue.models[MODEL]
    release(settings, requester="amal (falaj)")
    assert deploy_release(model, None, step) is None
    assert f"falaj approve {RELEASE}" in said[0]
    approve_release(settings, RELEASE, token_file=token(settings, "badr", "approver"))

    class WentOn(Exception):  # noqa: N818 - no error: the next thing that deployment does
        pass

    def go_on(*args):
        raise WentOn

    step.parts = SimpleNamespace(audit=parts.audit, registry=SimpleNamespace(set_alias=go_on))
    with pytest.raises(WentOn):
        deploy_release(model, None, step)
    assert said[-1] == "Approved by badr (falaj)."
