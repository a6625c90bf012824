"""Keys of a laptop: the key file that data keys are wrapped under, and the pair that releases are signed with, all of mode 0600."""

from __future__ import annotations

import base64
import json
import secrets
from typing import TYPE_CHECKING

from platform_assets.sealing.envelope import make_data_key
from platform_assets.sealing.keyring import KEYRING_FILE, Keyring
from platform_assets.sealing.signature import PUBLIC_KEY_FILE
from resources.home import ensure_secret, locked, write_atomically

if TYPE_CHECKING:
    from pathlib import Path

PRIVATE_KEY_FILE = "releases.key.pem"


class LaptopKeys(Keyring):
    """Keys in one file, which is made at first use and replaced whole: a kill leaves the old keys or the new ones."""

    def __init__(self, keys_dir: Path) -> None:
        super().__init__(keys_dir / KEYRING_FILE)
        self._dir = keys_dir

    def wrap(self, data_key: bytes, *, context: bytes) -> tuple[str, bytes]:
        """Wrap under the key in use; the first one is made here."""
        if not self._file.exists():
            key_id, key = _make_key()
            ensure_secret(self._file, content=_encode(key_id, {key_id: key}))
        return super().wrap(data_key, context=context)

    def ids(self) -> list[str]:
        """Return the ids of all keys, in the order in which they were made; none before the first use."""
        return list(self._read()[1]) if self._file.exists() else []

    def add(self) -> str:
        """Make a key and use it from now on; the others go on unwrapping."""
        self._dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        with locked(self._dir):
            key_id, key = _make_key()
            keys = self._read()[1] if self._file.exists() else {}
            write_atomically(self._file, _encode(key_id, {**keys, key_id: key}), mode=0o600)
        return key_id

    def forget(self, key_id: str) -> None:
        """Destroy a key that is not in use: what is wrapped under it cannot be read any more."""
        with locked(self._dir):
            current, keys = self._read()
            if key_id != current:
                write_atomically(self._file, _encode(current, {one: key for one, key in keys.items() if one != key_id}), mode=0o600)


class ModelSigner:
    """Signs folders with OpenSSF model signing under a key pair (ECDSA on P-256), which is made at first use."""

    def __init__(self, keys_dir: Path) -> None:
        self._private, self.public_key = keys_dir / PRIVATE_KEY_FILE, keys_dir / PUBLIC_KEY_FILE

    def sign(self, folder: Path) -> bytes:
        """Return the signature over every file of a folder, as a Sigstore bundle."""
        import tempfile
        from pathlib import Path

        from model_signing import signing

        self.ensure_pair()
        with tempfile.TemporaryDirectory() as beside:
            file = Path(beside) / "model.sig"
            signing.Config().use_elliptic_key_signer(private_key=self._private).sign(folder, file)
            return file.read_bytes()

    def ensure_pair(self) -> None:
        """Make the key pair where there is none; a public key that is missing alone is written again, another one is left as it is."""
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.hazmat.primitives.serialization import (
            Encoding,
            NoEncryption,
            PrivateFormat,
            PublicFormat,
            load_pem_private_key,
        )

        fresh = ec.generate_private_key(ec.SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        private = load_pem_private_key(ensure_secret(self._private, content=fresh), password=None)
        if not self.public_key.exists():
            public = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
            write_atomically(self.public_key, public)


def _make_key() -> tuple[str, bytes]:
    return secrets.token_hex(4), make_data_key()


def _encode(current: str, keys: dict[str, bytes]) -> bytes:
    return json.dumps({"current": current, "keys": {key_id: base64.b64encode(key).decode() for key_id, key in keys.items()}}).encode()
