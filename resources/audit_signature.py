"""Who vouches for the audit log: a signature over its length and newest hash, under a key that lies outside of the database.

A chain that is forged afresh has other hashes, and nobody without the key can sign them. Whoever can write `keys/` can; so can a copy of
yesterday's database pass for today's. Against both stands a checkpoint that is kept elsewhere (`falaj audit checkpoint`).
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from platform_assets.errors import StateError
from resources.home import ensure_secret, write_atomically

if TYPE_CHECKING:
    from pathlib import Path

PRIVATE_KEY_FILE, PUBLIC_KEY_FILE = "audit.key.pem", "audit.pub.pem"


class HeadSigner:
    """Signs and checks heads (length, newest hash) with an Ed25519 pair, which is made at first use, mode 0600."""

    def __init__(self, keys_dir: Path) -> None:
        self._private_file, self.public_key = keys_dir / PRIVATE_KEY_FILE, keys_dir / PUBLIC_KEY_FILE

    def is_made(self) -> bool:
        """Whether there is a key: from then on a log without a signature is one that somebody took it from."""
        return self._private_file.exists()

    def sign(self, length: int, newest: str) -> bytes:
        """Return the signature of a head."""
        return self._private.sign(_statement(length, newest))

    def check(self, length: int, newest: str, signature: bytes) -> None:
        """Raise StateError where this head was not signed with our key."""
        try:
            self._public.verify(signature, _statement(length, newest))
        except InvalidSignature as error:
            raise StateError(
                f"audit log: its head (entry {length}) is not signed with {self.public_key}; the log was forged, or its "
                "newest entries were written by somebody else"
            ) from error

    @cached_property
    def _private(self) -> Ed25519PrivateKey:
        fresh = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        try:
            key = load_pem_private_key(ensure_secret(self._private_file, content=fresh), password=None)
        except (OSError, ValueError, UnsupportedAlgorithm) as error:
            raise StateError(f"{self._private_file} is not a private key: {error}; restore it from a backup") from error
        if not isinstance(key, Ed25519PrivateKey):
            raise StateError(f"{self._private_file} holds a {type(key).__name__}; the audit log is signed with Ed25519")
        if not self.public_key.exists():
            write_atomically(self.public_key, key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
        return key

    @cached_property
    def _public(self) -> Ed25519PublicKey:
        try:
            key = load_pem_public_key(self.public_key.read_bytes())
        except (OSError, ValueError, UnsupportedAlgorithm) as error:
            raise StateError(f"{self.public_key}, which the audit log is verified with, cannot be read: {error}; restore it") from error
        if not isinstance(key, Ed25519PublicKey):
            raise StateError(f"{self.public_key} holds a {type(key).__name__}; the audit log is signed with Ed25519")
        return key


def _statement(length: int, newest: str) -> bytes:
    return f"falaj-audit/1\n{length}\n{newest}".encode()
