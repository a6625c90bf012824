"""Encryption of single values, so that equal ones stay equal: AES-SIV (RFC 5297), deterministic authenticated encryption.

Tables are merged by comparing rows and searched by value: a random nonce would make every row of every delivery a changed one. What it
tells whoever has the file and not the key is which rows have the same value, and how long that is.
"""

from __future__ import annotations

import base64

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV

from platform_assets.errors import SealError

PREFIX = "fjs1."  # what bears it is sealed, and by this scheme
KEY_BITS = 512


def make_value_key() -> bytes:
    """Return a fresh key, 64 bytes."""
    return AESSIV.generate_key(KEY_BITS)


class ValueCipher:
    """Seals texts under one key; `context` says what column it is and must be given again."""

    def __init__(self, key: bytes) -> None:
        self._cipher = AESSIV(key)

    def seal(self, value: str, *, context: bytes) -> str:
        """Return the sealed text; the same value in the same column gives the same one."""
        content = b"\0" + value.encode()  # AES-SIV takes no empty text
        return PREFIX + base64.urlsafe_b64encode(self._cipher.encrypt(content, [context])).decode()

    def open(self, sealed: str, *, context: bytes) -> str:
        """Return the value; SealError where key, column or a bit is another one."""
        try:
            return self._cipher.decrypt(base64.urlsafe_b64decode(sealed.removeprefix(PREFIX)), [context])[1:].decode()
        except (InvalidTag, ValueError) as error:
            raise SealError(
                "a personal value was altered, moved to another column, or sealed under another key", reason="altered"
            ) from error
