"""Releases at rest in an S3-compatible store: what is written when. The layout and the way back are `stages/serving/stored.py`."""

from __future__ import annotations

import time
import uuid
from typing import TYPE_CHECKING

from platform_assets.sealing.release import ENVELOPE_FILE
from platform_assets.stages.serving.stored import OBJECTS, PUT_FILE, SEALED, Pointer, bring, read_pointer
from resources.releases import SealedReleases

if TYPE_CHECKING:
    from pathlib import Path

    from platform_assets.ports import Keys
    from resources.keys import ModelSigner
    from resources.s3 import S3

_ABANDONED_SECONDS = 86_400.0  # so long after it was written, a file that no release names is of a killed put


class S3Releases(SealedReleases):
    """The store is what counts; the folder is a cache that may be removed."""

    def __init__(self, store: S3, *, cache: Path, keys: Keys, signer: ModelSigner) -> None:
        super().__init__(cache, keys=keys, signer=signer)
        self._store = store

    def path(self, digest: str) -> Path:
        """Return a local folder with a release as it lies in the store now, sealed; ReleaseError where it is not there."""
        return bring(self._root, digest, read=self._store.read, where=self._store.url)

    def digests(self) -> list[str]:
        """Return the digests of all releases."""
        return sorted(name.removesuffix(".json") for name in self._store.sizes(SEALED))

    def _is_there(self, digest: str) -> bool:
        return self._store.read(f"{SEALED}/{digest}.json") is not None

    def _lay_down(self, arriving: Path, digest: str) -> None:
        put = uuid.uuid4().hex
        files = sorted(str(path.relative_to(arriving)) for path in arriving.rglob("*") if path.is_file() and path.name != ENVELOPE_FILE)
        with self._store.reached():
            for name in files:
                key = self._store.key(f"{OBJECTS}/{digest}/{put}/{name}")
                self._store.client.upload_file(str(arriving / name), self._store.bucket, key)
        pointer = Pointer(put, tuple(files), (arriving / ENVELOPE_FILE).read_text(encoding="utf-8"))
        self._store.write(f"{SEALED}/{digest}.json", pointer.encode())
        (arriving / PUT_FILE).write_text(put)
        super()._lay_down(arriving, digest)
        self._sweep(digest, put)

    def _sweep(self, digest: str, put: str) -> None:
        """Remove files of other puts of this release, once nobody can be at work on them any more."""
        for name, written in self._store.times(f"{OBJECTS}/{digest}").items():
            if not name.startswith(f"{put}/") and time.time() - written > _ABANDONED_SECONDS:
                self._store.remove(f"{OBJECTS}/{digest}/{name}")

    def _keep_envelope(self, digest: str, content: bytes) -> None:
        pointer = read_pointer(digest, read=self._store.read, where=self._store.url)
        self._store.write(f"{SEALED}/{digest}.json", Pointer(pointer.put, pointer.files, content.decode()).encode())
        self.path(digest)
