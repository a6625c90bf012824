"""Vault's transit engine: a data key is unwrapped by one small request. What else the platform asks is `resources/vault.py`.

"Transit secrets engine (API)", Vault 1.13 or newer: before, `associated_data` was passed over, and a wrapped key would be bound to nothing.
A wrapped key is the ciphertext's bytes without Vault's prefix, which the id of its key says again: `NAME:vNUMBER`.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from platform_assets.errors import OutageError, SealError, StateError
from platform_assets.stages.serving.remote import Remote

if TYPE_CHECKING:
    from pathlib import Path

_LOST = ("not found", "too old", "too new")  # the key, or its version; "policy not found" was said before 1.10
_ALTERED = ("authentication failed", "invalid ciphertext")


@dataclass(frozen=True)
class VaultPlace:
    """Where a Vault is, and the transit key that wraps; the token is read from its file at each request, as Vault Agent renews it."""

    url: str
    token_file: Path
    mount: str = "transit"
    key: str = "falaj"
    namespace: str | None = None
    ca: Path | None = None


class RefusedError(StateError):
    """Vault understood a request and refused it: `status`, and its own words in `said`."""

    def __init__(self, message: str, *, status: int, said: str) -> None:
        super().__init__(message)
        self.status, self.said = status, said


class Transit:
    """One key of a transit engine: its versions wrap and unwrap, and never leave Vault."""

    def __init__(self, place: VaultPlace) -> None:
        self._place, self._server = place, Remote(place.url, ca=place.ca)
        self.where = f"Vault at {place.url}"

    def unwrap(self, key_id: str, wrapped: bytes, *, context: bytes) -> bytes:
        """Have a data key unwrapped; SealError where it is another one or its key is gone, OutageError where nobody answers."""
        name, _, version = key_id.rpartition(":v")
        if name != self._place.key or not version.isdecimal():
            raise self._lost(key_id)
        body = {"ciphertext": f"vault:v{version}:{_text(wrapped)}", "associated_data": _text(context)}
        try:
            found = self.ask("POST", f"decrypt/{name}", body)
        except RefusedError as error:
            if error.status != HTTPStatus.BAD_REQUEST:
                raise
            if any(words in error.said for words in _LOST):
                raise self._lost(key_id) from None
            if any(words in error.said for words in _ALTERED):
                raise SealError("the wrapped key of it was altered", reason="altered") from None
            raise
        return base64.b64decode(found["plaintext"])

    def ask(self, method: str, what: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return `data` of an answer; RefusedError, or OutageError where Vault is away, sealed, or limits how often it is asked."""
        content = b"" if body is None else json.dumps(body).encode()
        status, reply = self._server.ask(method, f"/v1/{quote(self._place.mount)}/{what}", content, headers=self._headers)
        try:
            found = json.loads(reply) if reply else {}
            said = " ".join("; ".join(found.get("errors", [])).split())  # Vault writes some over several lines
        except (ValueError, AttributeError, TypeError):
            found, said = {}, ""
        if status in (HTTPStatus.OK, HTTPStatus.NO_CONTENT):
            return dict(found.get("data") or {})
        sentence = f"{self.where} was asked for {self._place.mount}/{what} and said: {said or f'status {status}'}"
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status == HTTPStatus.TOO_MANY_REQUESTS:
            raise OutageError(sentence)
        if status == HTTPStatus.FORBIDDEN:
            sentence += f"; the token in {self._place.token_file} has run out, or lacks the policy (infra/team/vault/ shows both)"
        raise RefusedError(sentence, status=status, said=said)

    def _headers(self) -> dict[str, str]:
        try:
            token = self._place.token_file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise StateError(f"the token of {self.where} cannot be read from {self._place.token_file}: {error}") from None
        headers = {"X-Vault-Token": token, "X-Vault-Request": "true", "Content-Type": "application/json"}
        return {**headers, "X-Vault-Namespace": self._place.namespace} if self._place.namespace else headers

    def _lost(self, key_id: str) -> SealError:
        return SealError(
            f"it is encrypted under key {key_id}, which is not in {self.where} any more; without it nobody can read this", reason="key lost"
        )


def _text(content: bytes) -> str:
    return base64.b64encode(content).decode()
