"""Content-addressed folders on a local disk, and the memory of which work gave which. Sealed releases are `releases.py`."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import time
import uuid
from typing import TYPE_CHECKING, Any

from platform_assets.errors import ReleaseError
from platform_assets.manifests import digest_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

_ABANDONED_SECONDS = 3600.0


def folder_digest(folder: Path) -> str:
    """SHA-256 over names and contents of a folder's files: `<file's SHA-256>  <posix path>` a line, sorted by path."""
    return digest_of(file_digests(folder))


def file_digests(folder: Path) -> dict[str, str]:
    """Return name and SHA-256 of each of a folder's files."""
    return {name: _file_digest(path) for name, path in _files(folder)}


class FolderArtifactStore:
    """`objects/<digest>/` are the folders, `memo/` the memory, `incoming/` what is on its way in.

    A folder appears under its digest by one rename, so a kill at any moment leaves either all of it or nothing.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._verified: dict[str, tuple[Any, ...]] = {}

    def put(self, folder: Path) -> str:
        """Store a folder, atomically; return its digest. An altered copy under the same digest is replaced."""
        digest = folder_digest(folder)
        if self._is_whole(digest):
            return digest
        sweep(self._root / "incoming")
        arriving = self._root / "incoming" / uuid.uuid4().hex
        for name, path in _files(folder):
            target = arriving / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
        # The copy is what the name will promise: a source that changed meanwhile gets the digest of what was copied.
        digest = folder_digest(arriving)
        sync_tree(arriving)
        self._move_in(arriving, digest)
        return digest

    def path(self, digest: str) -> Path:
        """Return a local folder with exactly these contents; a missing or altered one raises ReleaseError."""
        folder = self._object(digest)
        if not folder.is_dir():
            raise ReleaseError(f"artefact {digest[:12]} is not in {self._root}; restore it from a backup or make it again")
        if not self._is_whole(digest):
            raise ReleaseError(
                f"artefact {digest[:12]} was altered: the files under {folder} no longer hash to its name; restore it or make it again"
            )
        return folder

    def peek(self, digest: str) -> Path:
        """Return the folder with what is there under this digest, altered or not."""
        return self._object(digest)

    def remember(self, fingerprint: str, digest: str, note: Mapping[str, Any]) -> None:
        """Record that work of this fingerprint gave this digest; a later record replaces an earlier one."""
        memo = self._memo(fingerprint)
        memo.parent.mkdir(parents=True, exist_ok=True)
        arriving = memo.with_name(f"{memo.name}.{uuid.uuid4().hex}")
        with arriving.open("w", encoding="utf-8") as file:
            json.dump({"fingerprint": fingerprint, "digest": digest, "note": dict(note)}, file, sort_keys=True, allow_nan=False)
            file.flush()
            os.fsync(file.fileno())
        arriving.replace(memo)

    def recall(self, fingerprint: str) -> tuple[str, dict[str, Any]] | None:
        """Return digest and note of work done before, when its artefact is still whole."""
        try:
            record = json.loads(self._memo(fingerprint).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        return (record["digest"], record["note"]) if self._is_whole(record["digest"]) else None

    def digests(self) -> list[str]:
        """Return the digests of all artefacts, whole or not."""
        objects = self._root / "objects"
        return sorted(folder.name for folder in objects.iterdir()) if objects.is_dir() else []

    def remove(self, digest: str) -> None:
        """Take an artefact's name away by a rename, then its files: a kill leaves it whole or unnamed, and unnamed ones are swept up."""
        incoming = self._root / "incoming"
        incoming.mkdir(parents=True, exist_ok=True)
        leaving = incoming / f"removed-{uuid.uuid4().hex}"
        with contextlib.suppress(FileNotFoundError):
            self._object(digest).rename(leaving)
        for left in incoming.glob("removed-*"):
            shutil.rmtree(left, ignore_errors=True)
        self._verified.pop(digest, None)

    def _object(self, digest: str) -> Path:
        if len(digest) != hashlib.sha256().digest_size * 2 or not set(digest) <= set("0123456789abcdef"):
            raise ReleaseError(f"{digest!r} is not the digest of an artefact; it would be 64 hexadecimal digits")
        return self._root / "objects" / digest

    def _memo(self, fingerprint: str) -> Path:
        return self._root / "memo" / f"{hashlib.sha256(fingerprint.encode()).hexdigest()}.json"

    def _is_whole(self, digest: str) -> bool:
        # Hashed again only when a name, size or time of change differs from what this process has verified before.
        folder = self._object(digest)
        if not folder.is_dir():
            return False
        stamp = tuple(
            (name, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
            for name, stat in ((name, path.stat()) for name, path in _files(folder))
        )
        if self._verified.get(digest) == stamp:
            return True
        if folder_digest(folder) != digest:
            return False
        self._verified[digest] = stamp
        return True

    def _move_in(self, arriving: Path, digest: str) -> None:
        target = self._object(digest)
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists() and not self._is_whole(digest):
            target.rename(self._root / "incoming" / f"altered-{uuid.uuid4().hex}")
        try:
            arriving.rename(target)
        except OSError:
            # Another process brought the same folder in between: then it is there, and whole.
            if not self._is_whole(digest):
                raise
            shutil.rmtree(arriving)
        sync(target.parent)


def sweep(incoming: Path) -> None:
    """Make the folder of what is on its way in, and remove what killed processes left in it."""
    incoming.mkdir(parents=True, exist_ok=True)
    for left in incoming.iterdir():
        if time.time() - left.stat().st_mtime > _ABANDONED_SECONDS:
            shutil.rmtree(left, ignore_errors=True)


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    if not folder.is_dir():
        raise ReleaseError(f"{folder} is not a folder; an artefact is a folder of files")
    found = sorted((path.relative_to(folder).as_posix(), path) for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    for name, path in found:
        if path.is_symlink() or not path.is_file() or "\n" in name:
            raise ReleaseError(f"{name!r} in {folder} is not a plain file; an artefact holds plain files only")
    return iter(found)


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync_tree(folder: Path) -> None:
    """Have a folder and all in it on disk."""
    for path in (*folder.rglob("*"), folder):
        sync(path)


def sync(path: Path) -> None:
    """Have a file, or a folder's list of names, on disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
