"""Parts that keep or pass on what is made from data, and under whose law each stands. Which asset comes where is the stages' to say."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Part = Literal[
    "tables", "artefacts", "online values", "releases", "model registry", "studies", "inference server", "production log",
    "runs", "audit log", "clocks", "ledger", "telemetry", "events", "notices", "edge box",
]  # fmt: skip


_JURISDICTION = re.compile("[A-Z]{2}")
_LOOPBACK = ("localhost", "::1")


@dataclass(frozen=True)
class Place:
    """One part, where it lies (in words), whose law holds there (ISO 3166-1 alpha-2), and which setting says so."""

    part: Part
    where: str
    jurisdiction: str
    declared: str

    @property
    def spot(self) -> tuple[str, str, str]:
        """What is one and the same for all parts that one server is."""
        return self.where, self.jurisdiction, self.declared


def check_jurisdiction(text: str) -> str:
    """Take the two letters of a jurisdiction (ISO 3166-1 alpha-2); anything else is a ValueError that says so."""
    if not _JURISDICTION.fullmatch(text):
        raise ValueError(f"{text!r} is no jurisdiction; write its two letters of ISO 3166-1, such as AE")
    return text


def is_loopback(host: str) -> bool:
    """Whether a host's name can only mean this machine."""
    return host in _LOOPBACK or host.startswith("127.")


def by_place(places: Iterable[Place]) -> dict[tuple[str, str, str], list[Place]]:
    """Return places that are one and the same (a server may be several parts), in order."""
    found: dict[tuple[str, str, str], list[Place]] = {}
    for place in places:
        found.setdefault(place.spot, []).append(place)
    return found
