"""Content-addressed folders in an S3-compatible store, beside a folder on this disk that spares fetching them again.

`artefacts/objects/DIGEST/NAME` are the files, `artefacts/lists/DIGEST.json` says which (name to SHA-256). The list is written last and
removed first, and its own hash is the digest: a kill at any moment leaves all of an artefact, or nothing that counts.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import uuid
from typing import TYPE_CHECKING, Any

from platform_assets.errors import ReleaseError
from platform_assets.manifests import digest_of
from resources.artifacts import FolderArtifactStore, file_digests, sweep

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from resources.s3 import S3

_OBJECTS, _LISTS, _MEMO = "artefacts/objects", "artefacts/lists", "artefacts/memo"


class S3ArtifactStore:
    """The store is what counts; the folder is a cache that may be removed."""

    def __init__(self, store: S3, *, cache: Path) -> None:
        self._store, self._root = store, cache
        self._cache = FolderArtifactStore(cache)

    def put(self, folder: Path) -> str:
        """Store a folder; return its digest. What is there already under its digest is made whole."""
        digest = self._cache.put(folder)
        held = self._cache.path(digest)
        if not self._is_whole(digest):
            files = file_digests(held)
            with self._store.reached():
                for name in files:
                    key = self._store.key(f"{_OBJECTS}/{digest}/{name}")
                    self._store.client.upload_file(str(held / name), self._store.bucket, key)
            self._store.write(f"{_LISTS}/{digest}.json", json.dumps(files, sort_keys=True).encode())
        return digest

    def path(self, digest: str) -> Path:
        """Return a local folder with exactly these contents, fetched where it is not here."""
        files = self._list(digest)
        if files is None:
            raise ReleaseError(f"artefact {digest[:12]} is not in {self._store.url}; restore it from a backup or make it again")
        try:
            return self._cache.path(digest)
        except ReleaseError:
            return self._fetch(digest, files)

    def peek(self, digest: str) -> Path:
        """Return a local folder with what is there under this digest, altered or not."""
        try:
            return self.path(digest)
        except ReleaseError:
            arriving = self._root / "incoming" / uuid.uuid4().hex
            self._download(digest, self._store.sizes(f"{_OBJECTS}/{digest}"), arriving)
            return arriving

    def remember(self, fingerprint: str, digest: str, note: Mapping[str, Any]) -> None:
        """Record that work of this fingerprint gave this digest."""
        record = {"fingerprint": fingerprint, "digest": digest, "note": dict(note)}
        self._store.write(_memo(fingerprint), json.dumps(record, sort_keys=True, allow_nan=False).encode())

    def recall(self, fingerprint: str) -> tuple[str, dict[str, Any]] | None:
        """Return digest and note of work done before, when its artefact is still whole."""
        found = self._store.read(_memo(fingerprint))
        if found is None:
            return None
        record = json.loads(found)
        return (record["digest"], record["note"]) if self._is_whole(record["digest"]) else None

    def digests(self) -> list[str]:
        """Return the digests of all artefacts, whole or not."""
        listed = {name.removesuffix(".json") for name in self._store.sizes(_LISTS)}
        return sorted(listed | {name.partition("/")[0] for name in self._store.sizes(_OBJECTS)})

    def remove(self, digest: str) -> None:
        """Remove the list, then the files, here and there."""
        self._store.remove(f"{_LISTS}/{digest}.json")
        for name in self._store.sizes(f"{_OBJECTS}/{digest}"):
            self._store.remove(f"{_OBJECTS}/{digest}/{name}")
        self._cache.remove(digest)

    def _list(self, digest: str) -> dict[str, str] | None:
        if len(digest) != hashlib.sha256().digest_size * 2 or not set(digest) <= set("0123456789abcdef"):
            raise ReleaseError(f"{digest!r} is not the digest of an artefact; it would be 64 hexadecimal digits")
        found = self._store.read(f"{_LISTS}/{digest}.json")
        files: dict[str, str] | None = None if found is None else json.loads(found)
        return files if files is not None and digest_of(files) == digest else None

    def _is_whole(self, digest: str) -> bool:
        """Whether every listed file is there; whether its bytes are, is seen when they are fetched."""
        files = self._list(digest)
        return files is not None and set(files) == set(self._store.sizes(f"{_OBJECTS}/{digest}"))

    def _fetch(self, digest: str, files: Mapping[str, str]) -> Path:
        sweep(self._root / "incoming")
        arriving = self._root / "incoming" / uuid.uuid4().hex
        try:
            self._download(digest, files, arriving)
            found = file_digests(arriving)
            if digest_of(found) != digest:
                self._store.remove(f"{_LISTS}/{digest}.json")  # so the work is not recalled, and what is made again is stored again
                wrong = ", ".join(sorted(name for name in files if found.get(name) != files[name])[:3])
                raise ReleaseError(f"artefact {digest[:12]} was altered in {self._store.url}: {wrong}; restore it or make it again")
            self._cache.put(arriving)
        finally:
            shutil.rmtree(arriving, ignore_errors=True)
        return self._cache.path(digest)

    def _download(self, digest: str, names: Mapping[str, Any], target: Path) -> None:
        target.mkdir(parents=True, exist_ok=True)
        there = self._store.sizes(f"{_OBJECTS}/{digest}")
        for name in (name for name in names if name in there):
            place = target / name
            if not place.resolve().is_relative_to(target.resolve()):
                raise ReleaseError(f"artefact {digest[:12]} names a file outside of itself: {name!r}")
            place.parent.mkdir(parents=True, exist_ok=True)
            with self._store.reached():
                self._store.client.download_file(self._store.bucket, self._store.key(f"{_OBJECTS}/{digest}/{name}"), str(place))


def _memo(fingerprint: str) -> str:
    return f"{_MEMO}/{hashlib.sha256(fingerprint.encode()).hexdigest()}.json"
