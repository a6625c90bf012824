"""Fake of the artefact store: bytes in memory, laid out in a scratch folder when a path is asked for."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

from platform_assets.errors import ReleaseError
from resources.artifacts import folder_digest

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


class MemoryArtifactStore:
    """Folders by digest. Each `path` is a fresh, private copy under the scratch folder."""

    def __init__(self, scratch: Path) -> None:
        self._scratch = scratch
        self._folders: dict[str, dict[str, bytes]] = {}
        self._memo: dict[str, tuple[str, dict[str, Any]]] = {}

    def put(self, folder: Path) -> str:
        """Keep a folder; return its digest."""
        digest = folder_digest(folder)
        self._folders[digest] = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        return digest

    def path(self, digest: str) -> Path:
        """Lay a folder out."""
        if digest not in self._folders:
            raise ReleaseError(f"artefact {digest[:12]} is not in memory; put it first")
        target = self._scratch / digest
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        for name, content in self._folders[digest].items():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            (target / name).write_bytes(content)
        return target

    def peek(self, digest: str) -> Path:
        """Lay a folder out; none can be altered."""
        return self.path(digest)

    def remember(self, fingerprint: str, digest: str, note: Mapping[str, Any]) -> None:
        """Record that work of this fingerprint gave this digest."""
        self._memo[fingerprint] = (digest, dict(note))

    def recall(self, fingerprint: str) -> tuple[str, dict[str, Any]] | None:
        """Return digest and note of work done before."""
        found = self._memo.get(fingerprint)
        return found if found is not None and found[0] in self._folders else None

    def digests(self) -> list[str]:
        """Return all digests."""
        return sorted(self._folders)

    def remove(self, digest: str) -> None:
        """Forget a folder."""
        self._folders.pop(digest, None)
