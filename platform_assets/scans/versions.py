"""Whether an OSV record speaks of a version: its list of versions and its ranges, in the order of the package's own ecosystem."""

from __future__ import annotations

import re
from functools import cmp_to_key, total_ordering
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from packaging.version import InvalidVersion, Version

from platform_assets.errors import ScanError
from platform_assets.scans.inventory import PYPI, Package

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def affects(affected: Mapping[str, Any], package: Package) -> bool:
    """Whether one entry of `affected` holds for a version (https://ossf.github.io/osv-schema/, "Evaluation")."""
    if package.version in affected.get("versions", []):
        return True
    ordered: Callable[[str], Any] = _python_version if package.ecosystem == PYPI else cmp_to_key(compare_debian)
    ranges = [one["events"] for one in affected.get("ranges", []) if one["type"] == "ECOSYSTEM"]
    return any(_within(events, package.version, ordered) for events in ranges)


def _within(events: list[Mapping[str, str]], version: str, ordered: Callable[[str], Any]) -> bool:
    at, vulnerable = ordered(version), False
    for event in sorted(events, key=lambda event: _Place(next(iter(event.values())), ordered)):
        ((kind, where),) = event.items()
        reached = where == "0" or ordered(where) <= at
        if kind == "introduced" and reached:
            vulnerable = True
        elif (kind == "fixed" and reached) or (kind == "last_affected" and ordered(where) < at):
            vulnerable = False
    return vulnerable


@total_ordering
class _Place:
    """A version in a range, where "0" stands before every other."""

    def __init__(self, version: str, ordered: Callable[[str], Any]) -> None:
        self._key = (0, 0) if version == "0" else (1, ordered(version))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Place) and self._key == other._key

    def __lt__(self, other: _Place) -> bool:
        return self._key < other._key

    __hash__ = None  # type: ignore[assignment]


def _python_version(text: str) -> Version:
    try:
        return Version(text)
    except InvalidVersion as error:
        raise ScanError(
            f"{text!r} is no version of a Python package (PEP 440), so it cannot be told whether an advisory holds for it."
        ) from error


def compare_debian(left: str, right: str) -> int:
    """Return -1, 0 or 1 as dpkg orders two versions (deb-version(7))."""
    for one, other in zip(_debian_parts(left), _debian_parts(right), strict=True):
        if found := _compare_part(one, other):
            return found
    return 0


def _debian_parts(version: str) -> tuple[str, str, str]:
    epoch, colon, rest = version.partition(":")
    epoch, rest = (epoch, rest) if colon else ("0", version)
    upstream, dash, revision = rest.rpartition("-")
    return epoch, (upstream if dash else rest), (revision if dash else "0")


def _compare_part(left: str, right: str) -> int:
    """Compare runs of other characters and runs of digits in turn."""
    for one, other in zip_longest(re.findall(r"(\D*)(\d*)", left), re.findall(r"(\D*)(\d*)", right), fillvalue=("", "")):
        keys = [([_weight(character) for character in words] + [0], int(digits or 0)) for words, digits in (one, other)]
        if keys[0] != keys[1]:
            return -1 if keys[0] < keys[1] else 1
    return 0


def _weight(character: str) -> int:
    """`~` before the end of a run, the end before letters, letters before all else."""
    return -1 if character == "~" else ord(character) + (0 if character.isalpha() else 256)
