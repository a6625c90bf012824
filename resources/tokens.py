"""Local issuer of tokens: the signing key under FALAJ_HOME and what it signs. Verifying is the inference server's `access` module."""

from __future__ import annotations

import os
import re
import tempfile
import time
import uuid
from collections.abc import Sequence
from pathlib import Path

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat, load_pem_private_key

from platform_assets.errors import AccessError, StateError
from platform_assets.stages.serving.access import ADMIN, ALGORITHM, AUDIENCE, ISSUER, PREDICT, PUBLIC_KEY_FILE

SIGNING_KEY_FILE = "tokens.key.pem"
_MODEL_SCOPE = re.compile(rf"^{PREDICT}:[a-z][a-z0-9_]{{0,62}}$")


def ensure_signing_key(keys_dir: Path) -> Path:
    """Make the key pair where there is none; return the private key's file (0600). Two processes at once end with one key."""
    keys_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    file = keys_dir / SIGNING_KEY_FILE
    if not file.exists():
        made = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        _write_new(file, made, mode=0o600)
    public = keys_dir / PUBLIC_KEY_FILE
    expected = _read_key(file).public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    if not public.exists() or public.read_bytes() != expected:
        beside = public.with_suffix(f".{os.getpid()}")
        beside.write_bytes(expected)
        beside.replace(public)
    return file


def mint(keys_dir: Path, *, scopes: Sequence[str], seconds: int = 86400, subject: str = "local", audience: str = AUDIENCE) -> str:
    """Sign a token with these scopes: `predict`, `predict:<model>`, `admin`. An unknown scope raises AccessError."""
    for scope in scopes:
        if scope not in (PREDICT, ADMIN) and not _MODEL_SCOPE.match(scope):
            raise AccessError(f"there is no scope {scope!r}; write {PREDICT}, {PREDICT}:MODEL or {ADMIN}")
    if not scopes:
        raise AccessError(f"a token needs at least one scope: {PREDICT}, {PREDICT}:MODEL or {ADMIN}")
    now = int(time.time())
    claims = {
        "iss": ISSUER,
        "aud": audience,
        "sub": subject,
        "scope": " ".join(scopes),
        "iat": now,
        "exp": now + seconds,
        "jti": uuid.uuid4().hex,
    }
    return jwt.encode(claims, _read_key(ensure_signing_key(keys_dir)), algorithm=ALGORITHM)


def _write_new(file: Path, content: bytes, *, mode: int) -> None:
    """Create a whole file or leave the one that another process made first: a link, unlike a rename, never replaces."""
    descriptor, name = tempfile.mkstemp(dir=file.parent)  # 0600 from the start
    beside = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            os.fchmod(stream.fileno(), mode)
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        if not file.exists():
            os.link(beside, file)
    except FileExistsError:
        return
    finally:
        beside.unlink(missing_ok=True)


def _read_key(file: Path) -> Ed25519PrivateKey:
    try:
        key = load_pem_private_key(file.read_bytes(), password=None)
    except (OSError, ValueError) as error:
        raise StateError(f"{file} is not a signing key: {error}; move it away and a new one is made") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise StateError(f"{file} holds a {type(key).__name__}; an Ed25519 key is needed, move it away and a new one is made")
    return key
