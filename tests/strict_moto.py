"""moto's server with a key service that refuses what AWS's does (API reference of KMS, Decrypt, Errors): run as a program."""

from __future__ import annotations

from moto.core.exceptions import JsonRESTError
from moto.kms.exceptions import InvalidCiphertextException
from moto.kms.models import KmsBackend
from moto.kms.utils import _deserialize_ciphertext_blob
from moto.server import main

_decrypt = KmsBackend.decrypt


class InvalidStateError(JsonRESTError):
    """A key that is to be destroyed, or switched off."""

    code = 400

    def __init__(self, state: str) -> None:
        super().__init__("KMSInvalidStateException", f"the key is {state}")


class IncorrectKeyError(JsonRESTError):
    """Another key than the one that encrypted."""

    code = 400

    def __init__(self) -> None:
        super().__init__("IncorrectKeyException", "another key encrypted this")


def decrypt(self: KmsBackend, ciphertext_blob: bytes, encryption_context: dict[str, str], key_id: str | None = None) -> tuple[bytes, str]:
    """Decrypt as moto does, once the key is one that AWS would use."""
    try:
        named = _deserialize_ciphertext_blob(ciphertext_blob=ciphertext_blob).key_id
    except (ValueError, UnicodeDecodeError):
        raise InvalidCiphertextException from None
    if named not in self.keys:  # a flipped bit: AWS's blobs are authenticated as a whole
        raise InvalidCiphertextException
    if key_id is not None and self.any_id_to_key_id(key_id) != named:
        raise IncorrectKeyError
    if self.keys[named].key_state != "Enabled":
        raise InvalidStateError(self.keys[named].key_state)
    return _decrypt(self, ciphertext_blob, encryption_context, key_id)


KmsBackend.decrypt = decrypt

if __name__ == "__main__":
    main()
