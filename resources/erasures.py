"""The journal of erasures under way, and the list of who is forgotten.

A journal is one file a person, sealed (AES-256-GCM under a key derived from the pseudonym key): it must name the person until they are
erased, so that a killed erasure can be gone on with, and is removed when that is proven. The list holds keyed hashes and stays.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from platform_assets.errors import StateError
from resources.home import write_atomically

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from resources.databases import Database, Dialect

_NONCE_BYTES = 12
_TABLE = "CREATE TABLE IF NOT EXISTS forgotten (dataset TEXT NOT NULL, mark TEXT NOT NULL, PRIMARY KEY (dataset, mark))"
_SCHEMA: dict[Dialect, str] = {"sqlite": _TABLE, "postgresql": _TABLE}


@dataclass(frozen=True)
class Erasure:
    """One person to be forgotten: who asked, how far it is. `found` is what was seen before anything was changed, None until then."""

    mark: str
    subject: str
    asked_by: str
    asked_at: str
    found: dict[str, Any] | None = None
    done: tuple[str, ...] = ()
    counts: dict[str, int] = field(default_factory=dict)


class Erasures:
    """Journals in a folder, the list in a database."""

    def __init__(self, folder: Path, *, state: Database, key: bytes) -> None:
        self._folder, self._state = folder, state
        self._cipher = AESGCM(hmac.digest(key, b"falaj erasure journal", hashlib.sha256))

    def begin(self, erasure: Erasure) -> Erasure:
        """Write down that a person is to be forgotten; asked twice it is one erasure, and the one under way is returned."""
        file = self._file(erasure.mark)
        if file.exists():
            return self._read(file)
        return self.keep(erasure)

    def keep(self, erasure: Erasure) -> Erasure:
        """Write down how far it is, whole or not at all; on disk when this returns."""
        nonce, name = os.urandom(_NONCE_BYTES), self._file(erasure.mark)
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        sealed = self._cipher.encrypt(nonce, json.dumps(asdict(erasure)).encode(), name.name.encode())
        write_atomically(name, nonce + sealed, mode=0o600)
        return erasure

    def under_way(self) -> list[Erasure]:
        """Return every erasure that is asked for and not proven."""
        return [self._read(file) for file in sorted(self._folder.glob("*.journal"))] if self._folder.is_dir() else []

    def end(self, mark: str) -> None:
        """Remove the journal of a proven erasure, and with it the last place that names the person."""
        self._file(mark).unlink(missing_ok=True)

    def forget(self, mark: str, *, datasets: Sequence[str]) -> None:
        """Put a person on the list: later deliveries of these datasets are read without them."""
        with self._state.alone(_SCHEMA) as unit:
            for dataset in datasets:
                unit.run("INSERT INTO forgotten VALUES (?, ?) ON CONFLICT DO NOTHING", dataset, mark)

    def forgotten(self, dataset: str) -> frozenset[str]:
        """Return the marks of everybody who is forgotten in a dataset."""
        if not self._state.is_made():
            return frozenset()
        with self._state.opened(_SCHEMA) as unit:
            return frozenset(mark for (mark,) in unit.run("SELECT mark FROM forgotten WHERE dataset = ?", dataset))

    def advance(self, erasure: Erasure, step: str, count: int) -> Erasure:
        """Write down that a step is done, and what it removed."""
        return self.keep(replace(erasure, done=(*erasure.done, step), counts={**erasure.counts, step: count}))

    def _file(self, mark: str) -> Path:
        return self._folder / f"{mark[:32]}.journal"

    def _read(self, file: Path) -> Erasure:
        content = file.read_bytes()
        try:
            found = json.loads(self._cipher.decrypt(content[:_NONCE_BYTES], content[_NONCE_BYTES:], file.name.encode()))
        except (InvalidTag, ValueError) as error:
            raise StateError(
                f"{file}: the journal of an erasure cannot be read with keys/pseudonym.key; restore that key, or remove the file and "
                "ask for the erasure again"
            ) from error
        return Erasure(**{**found, "done": tuple(found["done"])})
