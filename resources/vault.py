"""Keys of a team in Vault's transit engine: one key, whose newest version wraps; no version ever leaves Vault.

Unproven against Vault itself, of which there was none to be had: what is known of it here is its documented interface and the double in
`tests/vault_double.py`. Source: "Transit secrets engine (API)".
"""

from __future__ import annotations

import base64
from http import HTTPStatus
from typing import Any

from platform_assets.errors import SealError, StateError
from platform_assets.stages.serving.vault import RefusedError, Transit, VaultPlace

_PROBE = b"falaj probe"


class VaultKeys(Transit):
    """The Keys port over a transit key; the id of one is `NAME:vVERSION`."""

    def __init__(self, place: VaultPlace) -> None:
        super().__init__(place)
        self._name, self._made = place.key, False

    def current(self) -> str:
        """Return the id of the version that wraps."""
        found = self.ids()
        if not found:
            raise SealError(f"there is no key {self._name} in {self.where}", reason="key lost")
        return found[-1]

    def ids(self) -> list[str]:
        """Return the ids of all versions that unwrap, oldest first."""
        return [self._id(version) for version in self._versions()]

    def wrap(self, data_key: bytes, *, context: bytes) -> tuple[str, bytes]:
        """Return the id of the version in use, and the data key wrapped under it; the key is made here where there is none.

        Made so, not by encrypting alone: a token that may not create keys is told what it lacks, and no key of another kind arises.
        """
        if not self._made:
            if not self._versions():
                self._make()
            self._made = True
        text = {"plaintext": base64.b64encode(data_key).decode(), "associated_data": base64.b64encode(context).decode()}
        prefix, version, wrapped = self.ask("POST", f"encrypt/{self._name}", text)["ciphertext"].split(":", 2)
        assert prefix == "vault"
        return f"{self._name}:{version}", base64.b64decode(wrapped)

    def add(self) -> str:
        """Make a version and use it from now on."""
        if not self._versions():
            self._make()
        else:
            self.ask("POST", f"keys/{self._name}/rotate", {})
        return self.current()

    def forget(self, key_id: str) -> None:
        """Destroy a version for good; the one in use stays. Vault trims from the oldest on: one that has older ones waits for them."""
        versions = self._versions()
        if len(versions) < 2 or key_id != self._id(versions[0]):  # noqa: PLR2004
            return
        least = versions[1]
        self.ask("POST", f"keys/{self._name}/config", {"min_decryption_version": least, "min_encryption_version": least})
        self.ask("POST", f"keys/{self._name}/trim", {"min_available_version": least})

    def probe(self) -> None:
        """Ask for all that wrapping needs; StateError in a sentence where this Vault or this token will not do."""
        key_id, wrapped = self.wrap(_PROBE, context=_PROBE)
        if self.unwrap(key_id, wrapped, context=_PROBE) != _PROBE:
            raise StateError(f"{self.where} gave back another key than it was given")
        try:
            self.unwrap(key_id, wrapped, context=b"another")
        except SealError:
            return
        raise StateError(f"{self.where} passes over associated_data, so that keys could be exchanged; this platform needs 1.13 or newer")

    def _make(self) -> None:
        self.ask("POST", f"keys/{self._name}", {"type": "aes256-gcm96"})  # one that is there already stays as it is

    def _versions(self) -> list[int]:
        try:
            found: dict[str, Any] = self.ask("GET", f"keys/{self._name}")
        except RefusedError as error:
            if error.status == HTTPStatus.NOT_FOUND:
                return []
            raise
        return sorted(version for version in map(int, found["keys"]) if version >= int(found["min_decryption_version"]))

    def _id(self, version: int) -> str:
        return f"{self._name}:v{version}"
