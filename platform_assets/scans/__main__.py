"""The program of scans, `python -m platform_assets.scans`, which `make scan` calls: 0 nothing found, 1 something was, 2 nothing audited."""

from __future__ import annotations

import argparse
import datetime as dt
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from platform_assets.errors import ScanError
from platform_assets.scans.advisories import Advisories, audit
from platform_assets.scans.advisory_folder import AdvisoryFolder
from platform_assets.scans.advisory_service import PUBLIC_SERVICE, AdvisoryService
from platform_assets.scans.code import find_danger
from platform_assets.scans.exceptions import read_exceptions, split_borne
from platform_assets.scans.inventory import Package, read_bill, read_image, read_pins, read_root
from platform_assets.scans.secrets import find_secrets
from platform_assets.scans.tree import list_files

if TYPE_CHECKING:
    from collections.abc import Sequence

    from platform_assets.scans.exceptions import Borne
    from platform_assets.scans.findings import Finding

EXCEPTIONS = Path("infra/scan-exceptions.toml")
_CONSTRAINTS = "constraints.txt"


def main(arguments: Sequence[str] | None = None) -> int:
    """Scan this tree, or what `--image` names, and say what was found."""
    asked = _parser().parse_args(arguments)
    try:
        return _scan(asked)
    except ScanError as error:
        print(f"scan: {error}", file=sys.stderr)  # noqa: T201  # a program's answer
        return 2


def _scan(asked: argparse.Namespace) -> int:
    today = dt.datetime.now(tz=dt.UTC).date()
    exceptions = read_exceptions(asked.exceptions or asked.root / EXCEPTIONS, today)
    packages = _packages(asked.image) if asked.image else read_pins(asked.root / _CONSTRAINTS)
    found = audit(packages, _advisories(asked.advisories, asked.timeout))
    counted = Counter(package.ecosystem for package in packages)
    looked = [f"{number} packages of {ecosystem}" for ecosystem, number in sorted(counted.items())]
    if not asked.image:
        files = list_files(asked.root)
        found += [*find_secrets(asked.root, files), *find_danger(asked.root, files)]
        looked.append(f"{len(files)} files")
    return _say(found, exceptions, " and ".join(looked))


def _say(found: Sequence[Finding], exceptions: Sequence[Borne], looked: str) -> int:
    open_, borne, idle = split_borne(found, exceptions)
    lines = [str(one) for one in open_]
    lines += [f"borne    {one.name} {one.where}" for one in borne]
    lines += [f"idle     the exception for {one.finding} in {one.where} bears nothing that was found here" for one in idle]
    stopping = [one for one in open_ if one.stops]
    lines.append(f"scan: {looked}: {len(stopping)} findings that stop it, {len(open_) - len(stopping)} lesser, {len(borne)} borne")
    print("\n".join(lines))  # noqa: T201
    return 1 if stopping else 0


def _packages(image: str) -> list[Package]:
    path = Path(image)
    if path.suffix == ".json":
        return read_bill(path)
    return read_root(path) if path.exists() else read_image(image)


def _advisories(place: str, timeout_seconds: float) -> Advisories:
    if place.startswith(("http://", "https://")):
        return AdvisoryService(place, timeout_seconds=timeout_seconds)
    if not Path(place).is_dir():
        raise ScanError(
            f"{place} is neither a URL nor a folder, so there are no advisories; right would be a service of OSV's protocol, or its export."
        )
    return AdvisoryFolder(Path(place))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scan", description=__doc__)
    parser.add_argument("--advisories", default=PUBLIC_SERVICE, help="URL of a service of OSV's protocol, or a folder of OSV records")
    parser.add_argument(
        "--image", help="an image of podman's, a tar archive or folder of a root file system, or a bill of materials (.json)"
    )
    parser.add_argument("--exceptions", type=Path, help=f"the file of exceptions ({EXCEPTIONS} of the tree)")
    parser.add_argument("--root", type=Path, default=Path(), help="the tree")
    parser.add_argument("--timeout", type=float, default=120.0, help="seconds for a whole look-up at a service")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
