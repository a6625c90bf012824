"""What an image is built of, put into a folder for infra/docker/build.sh: `python -m resources.images requirements|context KIND [FOLDER]`.

The inference image takes files that are installed here, as an edge bundle does: no resolver and no network. The others take wheels, which
the script lays into the folder first.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

from platform_assets.errors import ReleaseError
from platform_assets.specs.packages import Package
from platform_assets.stages.release.sbom import SBOM_FILE, write_software_bill
from resources.commit import COMMIT_FILE
from resources.edge_site import our_modules, site_files
from resources.packages import installed_packages
from resources.settings import CHECKOUT

if TYPE_CHECKING:
    from collections.abc import Iterator

KINDS = ("inference", "platform", "trainer")
_TRAINER = "platform_assets.stages.training.work"
_BEFORE_3_11_3 = "async-timeout==5.0.1"  # redis wants it where the base's Python is Debian 12's, 3.11.2: pip here asks about its own
_BY_NAME = "platform_assets.networks.architectures"  # imported by the name that a declaration gives


def requirements(kind: str) -> list[str]:
    """Return what pip is asked for, beyond what constraints.txt pins."""
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return (
        [*project["dependencies"], "setuptools>=77", _BEFORE_3_11_3]
        if kind == "platform"
        else list(project["optional-dependencies"]["train"])
    )


def write_context(kind: str, folder: Path) -> None:
    """Lay what the image is made of into a folder, and the bill of its packages; ReleaseError where something is missing."""
    if kind == "platform":
        _write_tree(folder / "tree")
    else:
        for inside, file in site_files() if kind == "inference" else _trainer_files():
            target = folder / "site" / inside
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
    if kind == "inference":
        (folder / "bin").mkdir()
        (folder / "bin" / "python").symlink_to("/usr/bin/python3")
        packages = [package for package in installed_packages() if package.serves]
    else:
        packages = list(_wheels(folder / "wheels"))
    (folder / SBOM_FILE).write_text(write_software_bill(f"falaj-{kind}", packages=packages), encoding="utf-8")


def _write_tree(folder: Path) -> None:
    """Write the files of the commit, not what stands in the working tree beside it: the label names the commit."""
    folder.mkdir()
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=CHECKOUT, capture_output=True, text=True, check=False)
    (folder / COMMIT_FILE.name).write_text(commit.stdout, encoding="utf-8")  # releases name it; Git is not in the image
    with subprocess.Popen(["git", "archive", "--format=tar", "HEAD"], cwd=CHECKOUT, stdout=subprocess.PIPE) as archive:
        unpacked = subprocess.run(["tar", "--extract", "--directory", folder], stdin=archive.stdout, check=False)
    if commit.returncode or archive.returncode or unpacked.returncode:
        raise ReleaseError(f"{CHECKOUT} is no git checkout that can be archived; build images from a clone")


def _trainer_files() -> list[tuple[str, Path]]:
    named = (f"{_BY_NAME}.{file.stem}" for file in CHECKOUT.joinpath(*_BY_NAME.split(".")).glob("*.py") if file.stem != "__init__")
    return our_modules(_TRAINER, *named)


def _wheels(folder: Path) -> Iterator[Package]:
    found = sorted(folder.glob("*.whl"))
    if not found:
        raise ReleaseError(f"{folder} holds no wheels; infra/docker/build.sh lays them there")
    for wheel in found:
        name, version = wheel.name.split("-")[:2]
        yield Package(name.lower().replace("_", "-"), version, None, serves=True)


def main(arguments: list[str]) -> int:
    """Do what the script asks."""
    match arguments:
        case ["requirements", kind] if kind in KINDS[1:]:
            sys.stdout.writelines(f"{line}\n" for line in requirements(kind))
        case ["context", kind, folder] if kind in KINDS:
            write_context(kind, Path(folder))
        case _:
            sys.stderr.write(f"right would be: requirements KIND, or context KIND FOLDER; KIND is one of {', '.join(KINDS)}\n")
            return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
