"""Local issuer of tokens: the signing key under FALAJ_HOME and what it signs. Verifying is the inference server's `access` module."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import tempfile
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat, load_pem_private_key

from platform_assets.errors import AccessError, StateError
from platform_assets.identity.principal import ROLES
from platform_assets.stages.serving.access import ADMIN, ALGORITHM, AUDIENCE, ISSUER, METRICS, PREDICT, PUBLIC_KEY_FILE

SIGNING_KEY_FILE = "tokens.key.pem"
TICKETS = "tickets"  # folder of logins that wait for their link to be clicked, named by the code's hash
_TICKET_BYTES = 18
GATEWAY_AUDIENCE, LOGIN_AUDIENCE = "falaj-gateway", "falaj-login"
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
    """Sign a token with these scopes: `predict`, `predict:<model>`, `metrics`, `admin`. An unknown scope raises AccessError."""
    for scope in scopes:
        if scope not in (PREDICT, METRICS, ADMIN) and not _MODEL_SCOPE.match(scope):
            raise AccessError(f"there is no scope {scope!r}; write {PREDICT}, {PREDICT}:MODEL, {METRICS} or {ADMIN}")
    if not scopes:
        raise AccessError(f"a token needs at least one scope: {PREDICT}, {PREDICT}:MODEL, {METRICS} or {ADMIN}")
    return _sign(keys_dir, {"aud": audience, "sub": subject, "scope": " ".join(scopes)}, seconds=seconds)


def mint_identity(
    keys_dir: Path, *, roles: Sequence[str], tenants: Sequence[str], subject: str, seconds: int, audience: str = GATEWAY_AUDIENCE
) -> str:
    """Sign who somebody is, for the gateway (a program's bearer token) or for one login. An unknown role raises AccessError."""
    for role in roles:
        if role not in ROLES:
            raise AccessError(f"there is no role {role!r}; right would be {', '.join(ROLES)}")
    claims = {"aud": audience, "sub": subject, "roles": list(roles), "tenants": list(tenants)}
    return _sign(keys_dir, claims, seconds=seconds)


def leave_ticket(keys_dir: Path, *, roles: Sequence[str], tenants: Sequence[str], subject: str, seconds: int) -> str:
    """Sign a login and leave it for the gateway; return the short code that asks for it, once."""
    code = secrets.token_urlsafe(_TICKET_BYTES)
    signed = mint_identity(keys_dir, roles=roles, tenants=tenants, subject=subject, seconds=seconds, audience=LOGIN_AUDIENCE)
    for old in (keys_dir / TICKETS).glob("*"):
        if time.time() - old.stat().st_mtime > seconds:
            old.unlink(missing_ok=True)
    (keys_dir / TICKETS).mkdir(mode=0o700, exist_ok=True)
    _write_new(_ticket_file(keys_dir, code), signed.encode(), mode=0o600)
    return code


def take_ticket(keys_dir: Path, code: str) -> str:
    """Return the signed login of a code; AccessError where there is none, or it was taken. Of two that ask at once one gets it."""
    file = _ticket_file(keys_dir, code)
    try:
        signed = file.read_text()
        file.unlink()
    except OSError:
        raise AccessError("the link was used already, or is not one of ours; `falaj up` prints a new one") from None
    return signed


def _ticket_file(keys_dir: Path, code: str) -> Path:
    return keys_dir / TICKETS / hashlib.sha256(code.encode()).hexdigest()


def _sign(keys_dir: Path, claims: Mapping[str, Any], *, seconds: int) -> str:
    now = int(time.time())
    whole = {"iss": ISSUER, **claims, "iat": now, "exp": now + seconds, "jti": uuid.uuid4().hex}
    return jwt.encode(whole, _read_key(ensure_signing_key(keys_dir)), algorithm=ALGORITHM)


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
