"""A double of Vault's transit engine on loopback: real HTTP, real AES-GCM, the policies of `infra/team/vault/` enforced.

Answers, order of checks and wording follow Vault's documented interface and its public source (builtin/logical/transit, keysutil), as far as
a key of type aes256-gcm96 goes; anything else is answered 404, so that a request of ours that Vault would not know fails here, too.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from platform_assets.stages.serving.vault import VaultPlace
from resources.settings import CHECKOUT

POLICIES = CHECKOUT / "infra" / "team" / "vault"
_NONCE_BYTES = 12
_STANZA = re.compile(r'^path "(?P<path>[^"]+)" \{\n(?P<body>.*?)^\}', re.MULTILINE | re.DOTALL)


class RefusedError(Exception):
    """An answer of `status` with these errors."""

    def __init__(self, status: int, *errors: str) -> None:
        self.status, self.errors = status, list(errors)


@dataclass
class Key:
    """One transit key: its versions, and the three bounds on them."""

    versions: dict[int, bytes] = field(default_factory=dict)
    latest: int = 0
    min_available: int = 0
    min_decryption: int = 1
    min_encryption: int = 0

    def rotate(self) -> None:
        self.latest += 1
        self.versions[self.latest] = AESGCM.generate_key(256)

    def describe(self) -> dict[str, Any]:
        return {
            "type": "aes256-gcm96", "latest_version": self.latest, "min_available_version": self.min_available,
            "min_decryption_version": self.min_decryption, "min_encryption_version": self.min_encryption,
            "keys": {str(version): 1700000000 + version for version in self.versions if version >= self.min_decryption},
        }  # fmt: skip


class Vault:
    """What the server knows; tests change it between requests."""

    def __init__(self) -> None:
        self.keys: dict[str, Key] = {}
        self.tokens: dict[str, str] = {}  # token: policy, as the file below `infra/team/vault` is called
        self.sealed, self.binds, self.limited = False, True, False
        self.requests: list[tuple[str, str]] = []
        self.lock = threading.Lock()

    def answer(self, method: str, path: str, body: dict[str, Any], token: str) -> dict[str, Any]:
        """Return `data` of the answer."""
        if self.sealed:
            raise RefusedError(503, "Vault is sealed")
        if self.limited:
            raise RefusedError(429, "request path: rate limit quota exceeded")
        if token not in self.tokens:
            raise RefusedError(403, "permission denied", "invalid token")
        self._check_policy(self.tokens[token], method, path, body)
        _, what, name, *more = path.split("/")
        key = self.keys.get(name)
        asked = {
            ("GET", "keys"): lambda: self._read(key),
            ("POST", "keys"): lambda: self._make(name),
            ("POST", "keys", "rotate"): lambda: self._rotate(key),
            ("POST", "keys", "config"): lambda: self._configure(key, name, body),
            ("POST", "keys", "trim"): lambda: self._trim(key, body["min_available_version"]),
            ("POST", "encrypt"): lambda: self._encrypt(key, body),
            ("POST", "decrypt"): lambda: self._decrypt(key, body),
        }.get((method, what, *more))
        if asked is None:
            raise RefusedError(404)
        return asked()

    def _read(self, key: Key | None) -> dict[str, Any]:
        if key is None:
            raise RefusedError(404)
        return key.describe()

    def _make(self, name: str) -> dict[str, Any]:
        if name not in self.keys:
            self.keys[name] = Key()
            self.keys[name].rotate()
        return self.keys[name].describe()

    def _rotate(self, key: Key | None) -> dict[str, Any]:
        if key is None:
            raise RefusedError(400, "key not found")
        key.rotate()
        return key.describe()

    def _check_policy(self, policy: str, method: str, path: str, body: dict[str, Any]) -> None:
        for stanza in _STANZA.finditer((POLICIES / f"{policy}.hcl").read_text()):
            if stanza["path"] != path:
                continue
            capabilities = re.search(r"capabilities\s*= \[(.*)\]", stanza["body"])
            allowed = re.search(r"allowed_parameters = \{(.*)\}", stanza["body"])
            assert capabilities is not None
            wanted = {"GET": "read", "POST": "update"}[method]
            if f'"{wanted}"' not in capabilities[1]:
                break
            if allowed is not None:
                values = dict(re.findall(r'"(\w+)" = \[([^\]]*)\]', allowed[1]))
                if not all(name in values and (not values[name] or json.dumps(value) in values[name]) for name, value in body.items()):
                    break
            return
        raise RefusedError(403, "1 error occurred:\n\t* permission denied\n\n")

    def _configure(self, key: Key | None, name: str, body: dict[str, Any]) -> dict[str, Any]:
        if key is None:
            raise RefusedError(400, f"no existing key named {name} could be found")
        decryption, encryption = (
            body.get("min_decryption_version", key.min_decryption),
            body.get("min_encryption_version", key.min_encryption),
        )
        if decryption > key.latest or encryption > key.latest:
            raise RefusedError(400, f"cannot set min decryption version of {decryption}, latest key version is {key.latest}")
        if 0 < encryption < decryption:
            raise RefusedError(400, "cannot set min encryption/decryption values; min encryption version must not be less")
        if key.min_available > min(encryption, decryption):
            raise RefusedError(400, "min encryption version should not be less than min available version")
        key.min_decryption, key.min_encryption = decryption, encryption
        return key.describe()

    def _trim(self, key: Key | None, least: int) -> dict[str, Any]:
        if key is None:
            raise RefusedError(400, "invalid key name")
        if least < key.min_available:
            raise RefusedError(400, "minimum available version cannot be decremented")
        if key.min_encryption == 0:
            raise RefusedError(400, "minimum available version cannot be set when minimum encryption version is not set")
        if least > key.min_encryption or least > key.min_decryption:
            raise RefusedError(400, "minimum available version cannot be greater than minmum encryption version")
        key.min_available = least
        key.versions = {version: content for version, content in key.versions.items() if version >= least}
        return key.describe()

    def _encrypt(self, key: Key | None, body: dict[str, Any]) -> dict[str, Any]:
        if key is None:
            raise RefusedError(403, "1 error occurred:\n\t* permission denied\n\n")  # it would be created, which no policy of ours allows
        nonce, aad = os.urandom(_NONCE_BYTES), self._associated(body)
        sealed = nonce + AESGCM(key.versions[key.latest]).encrypt(nonce, _decoded(body["plaintext"]), aad)
        return {"ciphertext": f"vault:v{key.latest}:{base64.b64encode(sealed).decode()}", "key_version": key.latest}

    def _decrypt(self, key: Key | None, body: dict[str, Any]) -> dict[str, Any]:
        if key is None:
            raise RefusedError(400, "encryption key not found")
        found = re.fullmatch(r"vault:v(\d+):(.*)", body["ciphertext"])
        if found is None:
            raise RefusedError(400, "invalid ciphertext: no prefix")
        version = int(found[1]) or 1
        if version > key.latest:
            raise RefusedError(400, "invalid ciphertext: version is too new")
        if version < key.min_decryption:
            raise RefusedError(400, "ciphertext or signature version is disallowed by policy (too old)")
        try:
            sealed = base64.b64decode(found[2], validate=True)
        except binascii.Error:
            raise RefusedError(400, "invalid ciphertext: could not decode base64") from None
        if len(sealed) < _NONCE_BYTES:
            raise RefusedError(400, "invalid ciphertext length")
        try:
            plain = AESGCM(key.versions[version]).decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], self._associated(body))
        except InvalidTag:
            raise RefusedError(400, "cipher: message authentication failed") from None
        return {"plaintext": base64.b64encode(plain).decode()}

    def _associated(self, body: dict[str, Any]) -> bytes:
        return _decoded(body.get("associated_data", "")) if self.binds else b""


def _decoded(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


@contextmanager
def run_vault(folder: Path, *, tls: tuple[Path, Path, Path] | None = None) -> Iterator[tuple[Vault, VaultPlace]]:
    """Start it; yield what it knows, and where it is for the platform's token. `tls`: certificate, key, and the authority held to."""
    vault = Vault()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _reply(self) -> None:
            content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            path = self.path.removeprefix("/v1/")
            try:
                with vault.lock:
                    vault.requests.append((self.command, path))
                    data = vault.answer(self.command, path, json.loads(content) if content else {}, self.headers.get("X-Vault-Token", ""))
                status, reply = 200, {"request_id": "0", "data": data, "warnings": None}
            except RefusedError as refused:
                status, reply = refused.status, {"errors": refused.errors}
            text = json.dumps(reply).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST = _reply  # noqa: N815

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if tls is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tls[0], tls[1])
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        token_file = new_token(vault, folder / "token", "platform")
        url = f"http{'s' if tls else ''}://127.0.0.1:{server.server_port}"
        yield vault, VaultPlace(url, token_file, ca=tls[2] if tls else None)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def new_token(vault: Vault, file: Path, policy: str) -> Path:
    """Have a new token of a policy, as Vault Agent writes it: whole, and in the place of the one before."""
    token = f"double.{os.urandom(12).hex()}"
    vault.tokens[token] = policy
    file.parent.mkdir(parents=True, exist_ok=True)
    file.with_suffix(".new").write_text(token)
    file.with_suffix(".new").chmod(0o600)
    file.with_suffix(".new").replace(file)
    return file
