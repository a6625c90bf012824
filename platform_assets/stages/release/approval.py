"""Four eyes: whether somebody else than who asked for a release has approved it, read off the audit log."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

RELEASED, APPROVED = "release", "release_approved"


def requesters(entries: Iterable[Mapping[str, Any]], digest: str) -> frozenset[str]:
    """Return everybody who asked for this release: the same inputs give it again, whoever asks."""
    made = [entry["detail"] for entry in entries if entry["action"] == RELEASED and entry["detail"].get("digest") == digest]
    return frozenset(str(detail.get("requester", "")) for detail in made)


def second_person(entries: Iterable[Mapping[str, Any]], digest: str) -> str | None:
    """Return who approved it and did not ask for it, before or after; None where nobody did."""
    known = list(entries)
    asked = requesters(known, digest)
    approvers = [entry["actor"] for entry in known if entry["action"] == APPROVED and entry["detail"].get("digest") == digest]
    return next((approver for approver in approvers if approver not in asked), None)
