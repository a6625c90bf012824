"""Which packages there are to audit: of a pinned list, a CycloneDX bill of materials, or the root file system of an image."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import tarfile
import uuid
from contextlib import contextmanager
from dataclasses import dataclass
from email.parser import HeaderParser
from pathlib import Path
from typing import TYPE_CHECKING, Any

from packageurl import PackageURL
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from platform_assets.errors import ScanError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

PYPI = "PyPI"
_MOST_BYTES = 64 << 20  # of one file that lists packages
_DIST_INFO = re.compile(r"(^|/)[^/]+\.(dist-info/METADATA|egg-info/PKG-INFO)$")
_DPKG = re.compile(r"^var/lib/dpkg/(status|status\.d/[^/]+(?<!\.md5sums))$")
_RELEASE = re.compile(r"^(etc|usr/lib)/os-release$")
_FOREIGN = {"lib/apk/db/installed": "apk", "var/lib/rpm/rpmdb.sqlite": "rpm", "usr/lib/sysimage/rpm/rpmdb.sqlite": "rpm"}


@dataclass(frozen=True, order=True)
class Package:
    """A package in the words of OSV: `PyPI`, or `Debian:12` with the source package's name and version."""

    ecosystem: str
    name: str
    version: str


def read_pins(path: Path) -> list[Package]:
    """Return what a constraints file pins; ScanError for a line that pins nothing, as nobody could say what it is."""
    found = []
    for number, line in enumerate(_text(path).splitlines(), start=1):
        bare = line.partition("#")[0].strip()
        if not bare:
            continue
        try:
            wanted = Requirement(bare)
        except InvalidRequirement:
            wanted = None
        pins = [one.version for one in wanted.specifier if one.operator == "=="] if wanted else []
        if wanted is None or len(pins) != 1 or len(wanted.specifier) != 1:
            raise ScanError(f"{path}:{number}: {bare!r} pins no version; right would be NAME==VERSION.")
        found.append(Package(PYPI, canonicalize_name(wanted.name), pins[0]))
    return _some(found, str(path))


def read_bill(path: Path) -> list[Package]:
    """Return the libraries of a CycloneDX bill of materials as JSON, also of components within components."""
    try:
        bill = json.loads(_text(path))
        found = list(_bill_packages(bill["components"] if bill["bomFormat"] == "CycloneDX" else None, path))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ScanError(f"{path} is no CycloneDX bill of materials as JSON ({type(error).__name__}: {error}).") from error
    return _some(found, str(path))


def _bill_packages(components: Any, path: Path) -> Iterator[Package]:
    for component in components:
        if component["type"] in ("library", "framework", "application", "operating-system") and (
            component["type"] == "library" or "purl" in component
        ):
            yield _from_url(component.get("purl"), component["name"], path)
        yield from _bill_packages(component.get("components", []), path)


def _from_url(text: str | None, name: str, path: Path) -> Package:
    url = PackageURL.from_string(text) if text else None
    if url is None or not url.version or url.type not in ("pypi", "deb"):
        raise ScanError(f"{path}: {name} has the package URL {text!r}; what can be audited is pkg:pypi/NAME@VERSION and pkg:deb/debian/...")
    if url.type == "pypi":
        return Package(PYPI, canonicalize_name(url.name), url.version)
    of = url.qualifiers if isinstance(url.qualifiers, dict) else {}
    release = re.fullmatch(r"debian-(\d+)(\.\d+)?", of.get("distro", ""))
    if url.namespace != "debian" or release is None:
        raise ScanError(f"{path}: {text} names no release of Debian; right would be pkg:deb/debian/NAME@VERSION?distro=debian-12.")
    source, _, version = of.get("upstream", "").partition("@")
    return Package(f"Debian:{release[1]}", source or url.name, version or url.version)


def read_root(path: Path) -> list[Package]:
    """Return what is installed in a root file system, a folder or a tar archive of one: Python's packages and Debian's."""
    if path.is_dir():
        return _installed(_folder_files(path), str(path))
    try:
        with path.open("rb") as file, tarfile.open(fileobj=file, mode="r|*") as archive:
            return _installed(_archive_files(archive), str(path))
    except (OSError, tarfile.TarError) as error:
        raise ScanError(f"{path} is neither a folder nor a tar archive of a root file system ({error}).") from error


def read_image(name: str) -> list[Package]:
    """Return what is installed in an image that podman has."""
    with _exported(name) as archive:
        return _installed(_archive_files(archive), f"image {name}")


@contextmanager
def _exported(name: str) -> Iterator[tarfile.TarFile]:
    """Let podman hand out the image's files; the container is made, never started, and removed."""
    container = f"falaj-scan-{uuid.uuid4().hex}"
    try:
        made = subprocess.run(
            ["podman", "create", "--pull=never", "--name", container, "--", name, "true"], capture_output=True, text=True, check=False
        )
    except FileNotFoundError as error:
        raise ScanError(
            f"podman is not installed, so image {name} cannot be looked into: give a tar archive, a folder or a bill."
        ) from error
    if made.returncode:
        raise ScanError(f"image {name} cannot be looked into: {made.stderr.strip().splitlines()[-1:] or ['podman said nothing']}.")
    export = ["podman", "export", container]
    try:
        with subprocess.Popen(export, stdout=subprocess.PIPE) as process:
            with tarfile.open(fileobj=process.stdout, mode="r|") as archive:
                yield archive
            process.communicate()
            if process.returncode:
                raise ScanError(f"image {name}: {shlex.join(export)} ended with {process.returncode}.")
    except tarfile.TarError as error:
        raise ScanError(f"image {name}: what podman handed out is cut off ({error}).") from error
    finally:
        subprocess.run(["podman", "rm", "--force", container], capture_output=True, check=False)


def _folder_files(root: Path) -> Iterator[tuple[str, str | None]]:
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if _wanted(name) and path.is_file() and not path.is_symlink():
            yield name, _text(path)


def _archive_files(archive: tarfile.TarFile) -> Iterator[tuple[str, str]]:
    for member in archive:
        name = member.name.removeprefix("./").lstrip("/")
        if _wanted(name) and member.isfile():
            if member.size > _MOST_BYTES:
                raise ScanError(f"{name} has {member.size} bytes; a list of packages has at most {_MOST_BYTES}.")
            file = archive.extractfile(member)
            yield name, file.read().decode(errors="replace") if file else ""


def _wanted(name: str) -> bool:
    return name in _FOREIGN or any(pattern.search(name) for pattern in (_DIST_INFO, _DPKG, _RELEASE))


def _installed(files: Iterable[tuple[str, str | None]], place: str) -> list[Package]:
    found: set[Package] = set()
    debian: list[str] = []
    release = ""
    for name, text in files:
        if name in _FOREIGN:
            raise ScanError(
                f"{place} has packages of {_FOREIGN[name]}, for which nothing here reads advisories; Debian's and Python's can be audited."
            )
        if _RELEASE.search(name):
            release = text or release
        elif _DPKG.search(name):
            debian.append(text or "")
        else:
            headers = HeaderParser().parsestr(text or "")
            if not headers["Name"] or not headers["Version"]:
                raise ScanError(f"{place}: {name} names no package and version.")
            found.add(Package(PYPI, canonicalize_name(headers["Name"]), headers["Version"]))
    if debian:
        found.update(_debian_packages(debian, _debian_release(release, place)))
    return _some(sorted(found), place)


def _debian_release(text: str, place: str) -> str:
    of = dict(line.split("=", 1) for line in shlex.split(text, comments=True) if "=" in line)
    if of.get("ID") != "debian" or not of.get("VERSION_ID"):
        found = f"ID={of.get('ID')}, VERSION_ID={of.get('VERSION_ID')}"
        raise ScanError(f"{place}: dpkg's list is there, but os-release says {found}; right would be a release of Debian.")
    return f"Debian:{of['VERSION_ID']}"


def _debian_packages(lists: Iterable[str], ecosystem: str) -> Iterator[Package]:
    for entry in (entry for text in lists for entry in text.split("\n\n")):
        headers = HeaderParser().parsestr(entry.strip())
        if headers["Package"] and headers["Version"] and (headers["Status"] or "install ok installed").endswith(" installed"):
            source = re.fullmatch(r"(\S+)(?: \((\S+)\))?", headers["Source"] or headers["Package"])
            if source is not None:
                yield Package(ecosystem, source[1], source[2] or headers["Version"])


def _some(found: list[Package], place: str) -> list[Package]:
    if not found:
        raise ScanError(f"{place} names no package, so there is nothing to audit; a scan of nothing is no scan.")
    return sorted(set(found))


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            found = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise ScanError(f"{path} cannot be read ({error.strerror}).") from error
    if len(found) > _MOST_BYTES:
        raise ScanError(f"{path} has more than {_MOST_BYTES} bytes; a list of packages has not.")
    return found.decode(errors="replace")
