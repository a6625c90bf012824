"""The second person's word on a release: who they are, whether policies let them, and the entry that deployment waits for."""

from __future__ import annotations

import asyncio
from pathlib import Path

from platform_assets.errors import AccessError, ForbiddenError, ReleaseError, StateError
from platform_assets.identity.policy import PendingRelease, read_policies
from platform_assets.identity.principal import Principal, read_principal
from platform_assets.main_job.operations import find_release
from platform_assets.stages.release.approval import APPROVED, requesters
from resources.issuers import LocalIssuer, OidcIssuer, shell_user
from resources.settings import Settings

APPROVE = "approve"


def approve_release(settings: Settings, release: str, *, token_file: Path | None, by: str | None = None) -> tuple[str, str]:
    """Approve MODEL@VERSION; return the model and who did. ForbiddenError where they asked for it themselves, or no policy permits it."""
    model, _, version = release.partition("@")
    if by is not None:
        raise StateError(
            "--by names who releases a held run; a release is approved by whom --token-file says, or by the user of this shell"
        )
    if not version:
        raise ReleaseError(f"{release!r}: write MODEL@VERSION, as `falaj release list {model}` prints it")
    parts, digest = find_release(settings, model, version)
    spec, who = parts.catalogue.models[model], _identify(settings, token_file)
    if spec.governance.approval != "four-eyes":
        raise ReleaseError(f"{model} needs no second person; governance.approval: four-eyes in its declaration asks for one")
    entries = parts.audit.entries(subject=f"model/{model}")
    asked = sorted(requesters(entries, digest))
    policies = read_policies({file.name: file.read_text() for file in sorted(settings.identity.policies.glob("*.cedar*"))})
    denied = [one for one in asked if not policies.allow(who, APPROVE, PendingRelease(digest, spec.tenant, requester=one))]
    detail = {"digest": digest, "requesters": asked}
    if denied or not asked:
        parts.audit.append("second_person_refused", subject=f"model/{model}", actor=who.name, detail=detail)
        why = "who asked for a release cannot approve it" if who.name in asked else "no policy lets you approve for this tenant"
        raise ForbiddenError(
            f"{release} was not approved by {who.name}: {why}; it was asked for by {', '.join(asked) or 'nobody on record'}"
        )
    parts.audit.append(APPROVED, subject=f"model/{model}", actor=who.name, detail=detail)
    return model, who.name


def _identify(settings: Settings, token_file: Path | None) -> Principal:
    wanted = settings.identity
    if token_file is None:
        if wanted.issuer:
            raise AccessError("FALAJ_OIDC_ISSUER says who somebody is: give a token of it with --token-file")
        return shell_user()
    try:
        token = token_file.read_text().strip()
    except OSError as error:
        raise AccessError(f"--token-file {token_file} cannot be read: {error.strerror}") from error
    issuer = OidcIssuer(wanted.issuer) if wanted.issuer else LocalIssuer(settings.home.keys)
    claims = asyncio.run(issuer.check(token, audience=wanted.audience))
    return read_principal(claims, roles=wanted.roles, tenants=wanted.tenants)
