"""Releases at rest: signed, encrypted, under their digest. How they are opened is `platform_assets/sealing`."""

from __future__ import annotations

import fcntl
import shutil
import uuid
from functools import cached_property
from io import BytesIO
from typing import TYPE_CHECKING

from platform_assets.errors import ReleaseError, SealError
from platform_assets.manifests import ReleaseFiles, read_release
from platform_assets.sealing.envelope import encrypt, make_data_key
from platform_assets.sealing.release import (
    ENVELOPE_FILE,
    FILES,
    SIGNATURE_FILE,
    Opener,
    WrappedKey,
    context_of,
    read_envelope,
    write_envelope,
)
from platform_assets.specs.rotation import Rotation
from resources.artifacts import sweep, sync, sync_tree
from resources.home import locked, write_atomically

if TYPE_CHECKING:
    from pathlib import Path

    from platform_assets.ports import Keys
    from resources.keys import ModelSigner


class SealedReleases:
    """`<digest>/` are the sealed releases, `incoming/` what is on its way in; a release appears whole, by one rename."""

    def __init__(self, root: Path, *, keys: Keys, signer: ModelSigner) -> None:
        self._root, self._keys, self._signer = root, keys, signer

    def put(self, folder: Path) -> str:
        """Sign, encrypt and store a release that lies in the open; return its digest. What cannot be opened under it is replaced."""
        self._root.mkdir(parents=True, exist_ok=True)
        with locked(self._root, fcntl.LOCK_SH):  # a key that is about to be forgotten wraps nothing new
            return self._put(folder, read_release(folder))

    def _put(self, folder: Path, release: ReleaseFiles) -> str:
        digest = release.digest
        if self._is_there(digest) and self._opens(digest):
            return digest
        sweep(self._root / "incoming")
        arriving = self._root / "incoming" / uuid.uuid4().hex
        arriving.mkdir(parents=True)
        (arriving / SIGNATURE_FILE).write_bytes(self._signer.sign(folder))
        (arriving / ENVELOPE_FILE).write_bytes(write_envelope(self._encrypt(release, arriving)))
        self._opener.open(arriving, digest=digest)  # what the name will promise, also where the source changed meanwhile
        self._lay_down(arriving, digest)
        return digest

    def _is_there(self, digest: str) -> bool:
        return (self._root / digest).is_dir()

    def _lay_down(self, arriving: Path, digest: str) -> None:
        """Put a sealed folder in its place, whole or not at all."""
        target = self._root / digest
        sync_tree(arriving)
        if target.exists():
            target.rename(self._root / "incoming" / f"refused-{uuid.uuid4().hex}")
        try:
            arriving.rename(target)
        except OSError:  # another process brought the same release in between
            if not self._opens(digest):
                raise
            shutil.rmtree(arriving)
        sync(self._root)

    def open(self, digest: str) -> ReleaseFiles:
        """Return a release, verified and decrypted; SealError with the reason where it cannot be trusted or read."""
        return self._opener.open(self.path(digest), digest=digest)

    def path(self, digest: str) -> Path:
        """Return where a release lies, sealed; ReleaseError where it is not here."""
        folder = self._root / digest
        if not folder.is_dir():
            raise ReleaseError(
                f"release {digest[:12]} is not in {self._root}; restore it from a backup, or, if it is older than signing, "
                "seal it with `falaj release seal MODEL`"
            )
        return folder

    def digests(self) -> list[str]:
        """Return the digests of all releases."""
        return sorted(folder.name for folder in self._root.glob("[0-9a-f]*") if (folder / ENVELOPE_FILE).exists())

    def key_ids(self, digest: str) -> set[str]:
        """Return the ids of the keys that a release's data keys are wrapped under."""
        return {key.key_id for key in self._envelope(digest).values()}

    def rotate(self) -> Rotation:
        """Make a key, wrap every data key under it, forget keys that no release needs; encrypted files stay as they are, each byte.

        At every moment each release can be read: envelopes are replaced whole, and the key before this one is kept until the next
        rotation, for those who have read an envelope of before. A second call goes on where a killed one stopped.
        """
        self._root.mkdir(parents=True, exist_ok=True)
        with locked(self._root):
            before = self._keys.ids()[-1:]
            added = self._keys.add()
            rewrapped, unreadable, needed = [], {}, {added, *before}
            for digest in self.digests():
                try:
                    if self._rewrap(digest):
                        rewrapped.append(digest)
                    needed |= self.key_ids(digest)
                except SealError as error:
                    unreadable[digest] = str(error)
            given_up = [key_id for key_id in self._keys.ids() if key_id not in needed]
            for key_id in given_up:
                self._keys.forget(key_id)
            forgotten = tuple(key_id for key_id in given_up if key_id not in self._keys.ids())
        return Rotation(added, tuple(rewrapped), forgotten, unreadable)

    def _rewrap(self, digest: str) -> bool:
        current, before = self._keys.current(), self._envelope(digest)
        if all(key.key_id == current for key in before.values()):
            return False
        after = {}
        for name, key in before.items():
            context = context_of(digest, name)
            try:
                data_key = self._keys.unwrap(key.key_id, key.wrapped, context=context)
            except SealError as error:
                raise SealError(f"release {digest[:12]}, {name}: {error}", reason=error.reason) from error
            after[name] = WrappedKey(*self._keys.wrap(data_key, context=context))
        self._keep_envelope(digest, write_envelope(after))
        return True

    def _envelope(self, digest: str) -> dict[str, WrappedKey]:
        return read_envelope(self.path(digest))

    def _keep_envelope(self, digest: str, content: bytes) -> None:
        """Write an envelope anew: readers see the old one or the new one."""
        folder = self.path(digest)
        write_atomically(folder / ENVELOPE_FILE, content)
        sync(folder)

    @cached_property
    def _opener(self) -> Opener:
        return Opener(self._keys, self._signer.public_key)

    def _opens(self, digest: str) -> bool:
        try:
            self.open(digest)
        except ReleaseError:
            return False
        return True

    def _encrypt(self, release: ReleaseFiles, arriving: Path) -> dict[str, WrappedKey]:
        wrapped = {}
        for name, content in release.files.items():
            target, key, context = arriving / FILES / name, make_data_key(), context_of(release.digest, name)
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("wb") as stream:
                encrypt(BytesIO(content), stream, key=key, context=context)
            wrapped[name] = WrappedKey(*self._keys.wrap(key, context=context))
        return wrapped
