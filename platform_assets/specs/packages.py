"""A package of software, as an environment has it installed."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Package:
    """`serves` says whether the inference server needs it; the others made the release and are not needed to answer."""

    name: str
    version: str
    license: str | None
    serves: bool
