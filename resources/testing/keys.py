"""Fake of a key service: keys in memory, wrapping by AES-256-GCM as the laptop's does; and a release store with it."""

from __future__ import annotations

import os
import secrets
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from platform_assets.errors import SealError
from resources.keys import LaptopKeys, ModelSigner
from resources.releases import SealedReleases

if TYPE_CHECKING:
    from resources.settings import Home

_NONCE_BYTES = 12


class MemoryKeys:
    """Keys that end with the process."""

    def __init__(self) -> None:
        self._keys: dict[str, bytes] = {}

    def current(self) -> str:
        """Return the newest key's id."""
        if not self._keys:
            raise SealError("there is no key yet", reason="key lost")
        return next(reversed(self._keys))

    def ids(self) -> list[str]:
        """Return the ids, oldest first."""
        return list(self._keys)

    def wrap(self, data_key: bytes, *, context: bytes) -> tuple[str, bytes]:
        """Wrap under the newest key."""
        key_id, nonce = (self.current() if self._keys else self.add()), os.urandom(_NONCE_BYTES)
        return key_id, nonce + AESGCM(self._keys[key_id]).encrypt(nonce, data_key, context)

    def unwrap(self, key_id: str, wrapped: bytes, *, context: bytes) -> bytes:
        """Return the data key."""
        if key_id not in self._keys:
            raise SealError(f"it is encrypted under key {key_id}, which is not in memory", reason="key lost")
        try:
            return AESGCM(self._keys[key_id]).decrypt(wrapped[:_NONCE_BYTES], wrapped[_NONCE_BYTES:], context)
        except (InvalidTag, ValueError) as error:
            raise SealError("the wrapped key of it was altered", reason="altered") from error

    def add(self) -> str:
        """Make a key."""
        key_id = secrets.token_hex(4)
        self._keys[key_id] = AESGCM.generate_key(256)
        return key_id

    def forget(self, key_id: str) -> None:
        """Destroy a key, unless it is in use."""
        if key_id != self.current():
            self._keys.pop(key_id, None)


def open_releases(home: Home) -> SealedReleases:
    """Return the release store of a home, as a laptop binds it."""
    return SealedReleases(home.releases, keys=LaptopKeys(home.keys), signer=ModelSigner(home.keys))
