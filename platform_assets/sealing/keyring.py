"""The key file of a laptop: keys that wrap data keys, by id, the newest in use. Reading alone; making and rotating is `resources/keys.py`.

A wrapped key is AES-256-GCM under a random nonce: `nonce (12 bytes) || ciphertext || tag`, bound to what it is the key of.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from platform_assets.errors import SealError, StateError

if TYPE_CHECKING:
    from pathlib import Path

KEYRING_FILE = "releases.keys.json"
_NONCE_BYTES = 12


class Keyring:
    """Wraps under the newest key, unwraps under any that the file still holds; the file is read at each use, as it is now."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def current(self) -> str:
        """Return the id of the key that wraps."""
        return self._read()[0]

    def wrap(self, data_key: bytes, *, context: bytes) -> tuple[str, bytes]:
        """Return the id of the key in use, and the data key wrapped under it."""
        key_id, keys = self._read()
        nonce = os.urandom(_NONCE_BYTES)
        return key_id, nonce + AESGCM(keys[key_id]).encrypt(nonce, data_key, context)

    def unwrap(self, key_id: str, wrapped: bytes, *, context: bytes) -> bytes:
        """Return the data key; SealError where its key is not here, or it was not wrapped so."""
        keys = self._read()[1]
        if key_id not in keys:
            raise SealError(
                f"it is encrypted under key {key_id}, which is not in {self._file}; restore that file from a backup, without it nobody can "
                "read this release",
                reason="key lost",
            )
        try:
            return AESGCM(keys[key_id]).decrypt(wrapped[:_NONCE_BYTES], wrapped[_NONCE_BYTES:], context)
        except (InvalidTag, ValueError) as error:
            raise SealError("the wrapped key of it was altered", reason="altered") from error

    def _read(self) -> tuple[str, dict[str, bytes]]:
        try:
            found = json.loads(self._file.read_bytes())
            keys = {str(key_id): base64.b64decode(key, validate=True) for key_id, key in found["keys"].items()}
            return min(keys.keys() & {str(found["current"])}), keys
        except FileNotFoundError as error:
            raise SealError(
                f"there is no key file {self._file}; restore it from a backup, without it nobody can read what was encrypted under it",
                reason="key lost",
            ) from error
        except (OSError, ValueError, KeyError, TypeError, AttributeError, binascii.Error) as error:
            raise StateError(f"{self._file} is no key file: {type(error).__name__}; restore it from a backup") from error
