"""Advisories read from a folder of OSV records, one JSON file each, as OSV's exports lay them down: for places without a network."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from packaging.utils import canonicalize_name

from platform_assets.errors import ScanError
from platform_assets.scans.inventory import PYPI, Package
from platform_assets.scans.versions import affects

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from platform_assets.scans.advisories import Record


class AdvisoryFolder:
    """Reads every `*.json` under a folder at each look-up; a record that cannot be read fails it, since it might have been the one."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def look_up(self, packages: Sequence[Package]) -> dict[Package, list[Record]]:
        """Return the records about each package; ScanError where the folder has none about a whole ecosystem."""
        wanted: dict[tuple[str, str], list[Package]] = defaultdict(list)
        for package in packages:
            wanted[package.ecosystem, package.name].append(package)
        found: dict[Package, list[Record]] = {package: [] for package in packages}
        ecosystems: set[str] = set()
        for path, record in self._records():
            try:
                for affected in record.get("affected", []):
                    of = affected["package"]
                    ecosystems.add(of["ecosystem"])
                    name = canonicalize_name(of["name"]) if of["ecosystem"] == PYPI else of["name"]
                    for package in wanted.get((of["ecosystem"], name), ()):
                        if affects(affected, package) and record not in found[package]:
                            found[package].append(record)
            except (TypeError, KeyError, AttributeError, ValueError) as error:
                raise ScanError(f"{path} is no OSV record ({type(error).__name__}: {error}).") from error
        if lacking := sorted({package.ecosystem for package in packages} - ecosystems):
            raise ScanError(
                f"{self._folder} has no OSV record about {', '.join(lacking)}, so nothing was audited; "
                "right would be an export of OSV, unpacked."
            )
        return found

    def _records(self) -> Iterator[tuple[Path, Mapping[str, Any]]]:
        for path in sorted(self._folder.rglob("*.json")):
            try:
                record = json.loads(path.read_bytes())
            except (OSError, ValueError) as error:
                raise ScanError(f"{path} is no OSV record ({error}).") from error
            if not isinstance(record, dict) or not isinstance(record.get("id"), str):
                raise ScanError(f"{path} is no OSV record (it has no id).")
            yield path, record
