"""What the audit log knows of a model's releases: which were made, and which one is live. Of ours it needs the errors alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from platform_assets.errors import ReleaseError

if TYPE_CHECKING:
    from platform_assets.ports import AuditLog

_DECISIONS = ("rollout", "rollback")


def released_digests(audit: AuditLog, model: str) -> list[str]:
    """Digests of every release that was made, oldest first."""
    return [entry["detail"]["digest"] for entry in audit.entries(subject=f"model/{model}") if entry["action"] == "release"]


def gate_sentence(audit: AuditLog, model: str) -> str:
    """Return what the newest gate said where it let a candidate through; ReleaseError where it refused it, or nothing was judged yet."""
    verdicts = [entry["detail"] for entry in audit.entries(subject=f"model/{model}") if entry["action"] == "gate"]
    if not verdicts:
        raise ReleaseError(f"no candidate of {model} was judged yet; train it with `falaj run {model}`.")
    if not verdicts[-1]["passed"]:
        raise ReleaseError(f"the newest candidate of {model} was {verdicts[-1]['sentence']}; what was live before still is.")
    return str(verdicts[-1]["sentence"])


def live_digests(audit: AuditLog, model: str) -> list[str]:
    """What each decision made or left live, oldest first."""
    return [entry["detail"]["live"] for entry in decisions(audit, model)]


def decisions(audit: AuditLog, model: str) -> list[dict[str, Any]]:
    """Entries that made or left a release live, oldest first."""
    entries = audit.entries(subject=f"model/{model}")
    return [entry for entry in entries if entry["action"] in _DECISIONS and entry["detail"].get("live")]


def recorded_live(audit: AuditLog, model: str) -> str | None:
    """Digest that the newest decision made or left live, or None where none was taken."""
    return next(reversed(live_digests(audit, model)), None)
