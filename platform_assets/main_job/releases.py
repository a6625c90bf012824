"""What the audit log knows of a model's releases: which were made, and which one is live. Standard library only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from platform_assets.ports import AuditLog

_DECISIONS = ("rollout", "rollback")


def released_digests(audit: AuditLog, model: str) -> list[str]:
    """Digests of every release that was made, oldest first."""
    return [entry["detail"]["digest"] for entry in audit.entries(subject=f"model/{model}") if entry["action"] == "release"]


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
