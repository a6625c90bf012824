"""A release's manifest: the SHA-256 of each of its files, checked wherever a release is opened.

Standard library only: the inference server reads releases through it.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from platform_assets.errors import ReleaseError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

MANIFEST_FILE = "manifest.json"


def list_files(folder: Path) -> list[dict[str, str]]:
    """Return path and SHA-256 of every file of a release but its manifest, by path."""
    return [{"path": name, "sha256": hashlib.sha256((folder / name).read_bytes()).hexdigest()} for name in _names(folder)]


def digest_of(files: Mapping[str, bytes]) -> str:
    """Return the digest that names a folder of these files: SHA-256 over `<file's SHA-256>  <path>` a line, sorted by path."""
    lines = "".join(f"{hashlib.sha256(files[name]).hexdigest()}  {name}\n" for name in sorted(files))
    return hashlib.sha256(lines.encode()).hexdigest()


def read_release(folder: Path, *, digest: str | None = None) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Return a release's manifest and the bytes of its files: those that were hashed are those that are used.

    A file that is missing, altered, not listed or outside the folder raises ReleaseError naming it, and so does a folder that is whole
    but not the release of this digest.
    """
    manifest, content = _read_manifest(folder)
    listed: dict[str, str] = {entry["path"]: entry["sha256"] for entry in manifest["files"]}
    files = {name: _read_inside(folder, name) for name in listed}
    for name, expected in listed.items():
        found = hashlib.sha256(files[name]).hexdigest()
        if found != expected:
            raise ReleaseError(f"{folder / name} was altered: its SHA-256 is {found[:12]}..., the manifest says {expected[:12]}...")
    if more := [name for name in _names(folder) if name not in listed]:
        raise ReleaseError(f"{folder / more[0]} is not listed in {MANIFEST_FILE}; take it away, or make the release again")
    if digest is not None and (found := digest_of({**files, MANIFEST_FILE: content})) != digest:
        raise ReleaseError(f"{folder} holds release {found[:12]}, not {digest[:12]} that was asked for; restore it or make it again")
    return manifest, files


def _names(folder: Path) -> list[str]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return sorted(name for path in paths if (name := path.relative_to(folder).as_posix()) != MANIFEST_FILE)


def _read_manifest(folder: Path) -> tuple[dict[str, Any], bytes]:
    try:
        content = (folder / MANIFEST_FILE).read_bytes()
        manifest = json.loads(content)
        whole = isinstance(manifest["model"], str) and all(
            isinstance(entry["path"], str) and isinstance(entry["sha256"], str) for entry in manifest["files"]
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ReleaseError(f"{folder} holds no release: {MANIFEST_FILE} cannot be read ({error})") from error
    if not whole:
        raise ReleaseError(f"{folder / MANIFEST_FILE} is wrong; it needs model, and files as a list of path and sha256")
    return dict(manifest), content


def _read_inside(folder: Path, name: str) -> bytes:
    file = folder / name
    if not file.resolve().is_relative_to(folder.resolve()):
        raise ReleaseError(f"{folder / MANIFEST_FILE} names {name!r}, which is outside the release")
    try:
        return file.read_bytes()
    except OSError as error:
        raise ReleaseError(f"{file} of the release is missing or cannot be read: {error.strerror}") from error
