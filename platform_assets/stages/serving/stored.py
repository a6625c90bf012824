"""Releases that lie in a store, sealed as they are in a folder: brought to this disk, opened and verified as they always are.

`releases/objects/DIGEST/PUT/NAME` are the encrypted files and the signature of one put; `releases/sealed/DIGEST.json` says which put counts
and holds the envelope: {"put", "files": [NAME], "envelope": the content of envelope.json}. It is written last and replaced whole, by a put
or a rotation of keys, so that a killed one leaves what was there. The folder on this disk is a cache that may be removed at any time.
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from platform_assets.errors import ReleaseError, SealError
from platform_assets.sealing.release import ENVELOPE_FILE, Opener

if TYPE_CHECKING:
    from pathlib import Path

    from platform_assets.manifests import ReleaseFiles
    from platform_assets.sealing.release import Unwraps

SEALED, OBJECTS = "releases/sealed", "releases/objects"
PUT_FILE = "put"  # in a folder of the cache: which put it is of

Read = Callable[[str], bytes | None]


@dataclass(frozen=True)
class Pointer:
    """Which put of a release counts, the files of it, and the envelope of their keys."""

    put: str
    files: tuple[str, ...]
    envelope: str

    def encode(self) -> bytes:
        """Content of the object."""
        return json.dumps({"put": self.put, "files": list(self.files), "envelope": self.envelope}).encode()


def read_pointer(digest: str, *, read: Read, where: str) -> Pointer:
    """Return what the store says of a release; ReleaseError where it has none of this digest."""
    content = read(f"{SEALED}/{digest}.json")
    if content is None:
        raise ReleaseError(f"release {digest[:12]} is not in {where}; restore it from a backup, or release it again")
    try:
        found = json.loads(content)
        pointer = Pointer(str(found["put"]), tuple(map(str, found["files"])), str(found["envelope"]))
    except (ValueError, KeyError, TypeError, RecursionError):
        raise SealError(
            f"release {digest[:12]} in {where} was refused: what says which files it has was altered", reason="altered"
        ) from None
    if not pointer.put.isalnum() or any(part in {"", ".", ".."} for name in pointer.files for part in name.split("/")):
        raise SealError(f"release {digest[:12]} in {where} was refused: it names files outside of itself", reason="altered")
    return pointer


def bring(root: Path, digest: str, *, read: Read, where: str) -> Path:
    """Return a folder under `root` with the release as it is in the store now, fetched where it is not here. Nothing is verified yet."""
    pointer, folder = read_pointer(digest, read=read, where=where), root / digest
    if _put_of(folder) != pointer.put:
        _fetch(root, digest, pointer, read=read, where=where)
    envelope = folder / ENVELOPE_FILE
    if not envelope.exists() or envelope.read_text(encoding="utf-8") != pointer.envelope:  # keys were rotated meanwhile
        _write_whole(envelope, pointer.envelope.encode())
    return folder


class StoreOpener(Opener):
    """Opens releases that a store has, over a cache of this server's own."""

    def __init__(self, keys: Unwraps, public_key: Path, *, cache: Path, read: Read, where: str) -> None:
        super().__init__(keys, public_key)
        self._cache, self._read, self._where = cache, read, where

    def open(self, folder: Path, *, digest: str) -> ReleaseFiles:
        """Return the release of this digest, every byte verified, whatever lies in `folder`."""
        del folder
        return super().open(bring(self._cache, digest, read=self._read, where=self._where), digest=digest)


def _fetch(root: Path, digest: str, pointer: Pointer, *, read: Read, where: str) -> None:
    folder, aside = root / digest, root / "incoming" / uuid.uuid4().hex
    arriving = root / "incoming" / uuid.uuid4().hex
    try:
        for name in pointer.files:
            content = read(f"{OBJECTS}/{digest}/{pointer.put}/{name}")
            if content is None:
                raise SealError(f"release {digest[:12]} in {where} was refused: it lost {name}", reason="altered")
            (arriving / name).parent.mkdir(parents=True, exist_ok=True)
            (arriving / name).write_bytes(content)
        arriving.mkdir(parents=True, exist_ok=True)
        (arriving / ENVELOPE_FILE).write_text(pointer.envelope, encoding="utf-8")
        (arriving / PUT_FILE).write_text(pointer.put)
        if folder.exists():
            folder.rename(aside)
        try:
            arriving.rename(folder)
        except OSError:  # another process brought it in between
            if _put_of(folder) != pointer.put:
                raise
    finally:
        shutil.rmtree(arriving, ignore_errors=True)
        shutil.rmtree(aside, ignore_errors=True)


def _put_of(folder: Path) -> str | None:
    try:
        return (folder / PUT_FILE).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None


def _write_whole(file: Path, content: bytes) -> None:
    beside = file.with_name(f".{file.name}.{os.getpid()}.{uuid.uuid4().hex[:8]}")
    beside.write_bytes(content)
    beside.replace(file)
