"""A release's manifest: the SHA-256 of each of its files, checked wherever a release is opened, and the digest that is its name.

Standard library only: the inference server reads releases through it. How releases lie at rest is `sealing/`.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from platform_assets.errors import ReleaseError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

MANIFEST_FILE = "manifest.json"
VERSION_DIGITS = 12


@dataclass(frozen=True)
class ReleaseFiles:
    """A release that was checked: the bytes that were hashed are those that are used."""

    digest: str
    manifest: Mapping[str, Any]
    files: Mapping[str, bytes]

    @property
    def version(self) -> str:
        """First twelve digits of the digest, as releases are named."""
        return self.digest[:VERSION_DIGITS]

    def __getitem__(self, name: str) -> bytes:
        """Content of one file; ReleaseError where the release has none of this name."""
        if name not in self.files:
            raise ReleaseError(f"release {self.version} has no {name}; make the release again")
        return self.files[name]


def digest_of(hashes: Mapping[str, str]) -> str:
    """SHA-256 over names and contents of a folder's files: `<file's SHA-256>  <posix path>` a line, sorted by path."""
    return hashlib.sha256("".join(f"{hashes[name]}  {name}\n" for name in sorted(hashes)).encode()).hexdigest()


def hash_files(files: Mapping[str, bytes]) -> dict[str, str]:
    """SHA-256 of each file."""
    return {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}


def list_files(folder: Path) -> list[dict[str, str]]:
    """Return path and SHA-256 of every file of a release but its manifest, by path."""
    names = [name for name in _names(folder) if name != MANIFEST_FILE]
    return [{"path": name, "sha256": hashlib.sha256((folder / name).read_bytes()).hexdigest()} for name in names]


def read_release(folder: Path) -> ReleaseFiles:
    """Read and check a release that lies in the open, as it was made."""
    for name in _listed(_read(folder / MANIFEST_FILE), where=folder):
        if not (folder / name).resolve().is_relative_to(folder.resolve()):
            raise ReleaseError(f"{folder / MANIFEST_FILE} names {name!r}, which is outside the release")
    files = {name: _read(folder / name) for name in _names(folder)}
    return check_release(files, hashes=hash_files(files), where=folder)


def check_release(files: Mapping[str, bytes], *, hashes: Mapping[str, str], where: object) -> ReleaseFiles:
    """Hold files and their hashes against the manifest among them.

    A file that is missing, altered or not listed raises ReleaseError naming it; so does a manifest that is none.
    """
    if MANIFEST_FILE not in files:
        raise ReleaseError(f"{where} holds no release: {MANIFEST_FILE} is missing")
    manifest = files[MANIFEST_FILE]
    listed = _listed(manifest, where=where)
    for name, expected in listed.items():
        if name not in hashes:
            raise ReleaseError(f"{where}: {name} of the release is missing")
        if hashes[name] != expected:
            raise ReleaseError(f"{where}: {name} was altered: its SHA-256 is {hashes[name][:12]}..., the manifest says {expected[:12]}...")
    if more := sorted(set(files) - {*listed, MANIFEST_FILE}):
        raise ReleaseError(f"{where}: {more[0]} is not listed in {MANIFEST_FILE}; take it away, or make the release again")
    return ReleaseFiles(digest_of(hashes), json.loads(manifest), files)


def _names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def _listed(content: bytes, *, where: object) -> dict[str, str]:
    try:
        manifest = json.loads(content)
        entries = {entry["path"]: entry["sha256"] for entry in manifest["files"]}
        whole = all(isinstance(text, str) for text in (manifest["model"], *entries, *entries.values()))
    except (ValueError, KeyError, TypeError) as error:
        raise ReleaseError(f"{where} holds no release: {MANIFEST_FILE} cannot be read ({error})") from error
    if not whole:
        raise ReleaseError(f"{where}: {MANIFEST_FILE} is wrong; it needs model, and files as a list of path and sha256")
    return entries


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise ReleaseError(f"{file} of the release is missing or cannot be read: {error.strerror}") from error
