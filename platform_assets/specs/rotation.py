"""What a rotation of keys did."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Rotation:
    """What a rotation of keys did: the key that wraps from now on, the releases it was brought to, the keys that were destroyed.

    `unreadable`: releases that could not be read before, and why.
    """

    added: str
    rewrapped: tuple[str, ...]
    forgotten: tuple[str, ...]
    unreadable: Mapping[str, str]
