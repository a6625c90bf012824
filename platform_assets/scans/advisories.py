"""What advisories say about packages, as findings: one for each hole, under whichever names it is known."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from platform_assets.scans.findings import Finding
from platform_assets.scans.severity import read_severity, worst

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from platform_assets.scans.inventory import Package

Record = Mapping[str, Any]  # https://ossf.github.io/osv-schema/


class Advisories(Protocol):
    """Where advisories come from."""

    def look_up(self, packages: Sequence[Package]) -> dict[Package, list[Record]]:
        """Return the records about each package; ScanError where that cannot be said of every one."""


def audit(packages: Sequence[Package], advisories: Advisories) -> list[Finding]:
    """Return what advisories that stand say about each package, the worst first."""
    found = []
    for package, records in advisories.look_up(packages).items():
        found += [_finding(package, names, same) for names, same in _group([one for one in records if not one.get("withdrawn")])]
    order = ("critical", "high", "unknown", "medium", "low", "none")
    return sorted(found, key=lambda one: (order.index(one.severity), one.where, one.name))


def _group(records: Sequence[Record]) -> list[tuple[set[str], list[Record]]]:
    """Put together records that name each other: PyPA, GitHub and the CVE list tell of one hole three times."""
    groups: list[tuple[set[str], list[Record]]] = []
    for record in records:
        names, same = {str(record["id"]), *map(str, record.get("aliases") or ())}, [record]
        for group in [one for one in groups if one[0] & names]:
            groups.remove(group)
            names, same = names | group[0], group[1] + same
        groups.append((names, same))
    return groups


def _finding(package: Package, names: set[str], records: Sequence[Record]) -> Finding:
    ids = sorted(str(record["id"]) for record in records)
    said = next((str(record[key]) for record in records for key in ("summary", "details") if record.get(key)), "no word of what it is")
    fixed = sorted({version for record in records for version in _fixes(record, package)})
    mended = f"mended in {', '.join(fixed)}" if fixed else "mended nowhere"
    text = f"{package.version} ({package.ecosystem}): {' '.join(said.split())[:160]}; {mended}"
    return Finding(ids[0], package.name, worst(*map(read_severity, records)), text, tuple(sorted(names - {ids[0]})))


def _fixes(record: Record, package: Package) -> Iterator[str]:
    for affected in record.get("affected") or ():
        of = affected.get("package", {})
        if of.get("ecosystem") == package.ecosystem and str(of.get("name")).lower().replace("_", "-") == package.name:
            events = [event for one in affected.get("ranges") or () if one.get("type") == "ECOSYSTEM" for event in one.get("events") or ()]
            yield from (str(event["fixed"]) for event in events if "fixed" in event)
