"""The packages of this environment: what the platform needs, as it is installed here."""

from __future__ import annotations

import re
from functools import cache
from importlib.metadata import Distribution, PackageNotFoundError, distribution

from packaging.requirements import Requirement

from platform_assets.specs.packages import Package

PLATFORM, SERVE = "falaj-platform", "serve"


@cache
def installed_packages() -> tuple[Package, ...]:
    """Return what the platform needs, directly or not, by name; an optional requirement that is not installed is none."""
    platform = distribution(PLATFORM)
    serving = _closure(platform, extras=frozenset({SERVE}), only_extra=True)
    found = {**_closure(platform, extras=frozenset({SERVE}), only_extra=False), **serving}
    return tuple(
        Package(name, one.version, _license(one), serves=name in serving) for name, one in sorted(found.items()) if name != PLATFORM
    )


def _closure(root: Distribution, *, extras: frozenset[str], only_extra: bool) -> dict[str, Distribution]:
    """Walk requirements; `only_extra` takes of the root those alone that an extra asks for."""
    found: dict[str, Distribution] = {}
    queue = [(root, extras, only_extra)]
    while queue:
        one, wanted, only = queue.pop()
        for requirement in map(Requirement, one.requires or ()):
            holds = [requirement.marker is None or requirement.marker.evaluate({"extra": extra}) for extra in ("", *wanted)]
            if not any(holds) or (only and holds[0]):
                continue
            name = _normal(requirement.name)
            try:
                package = distribution(name)
            except PackageNotFoundError:
                continue
            if name not in found:
                found[name] = package
                queue.append((package, frozenset(requirement.extras), False))
    return found


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _license(package: Distribution) -> str | None:
    """Return an SPDX expression, where the package states one."""
    return next(iter(package.metadata.get_all("License-Expression") or ()), None)
