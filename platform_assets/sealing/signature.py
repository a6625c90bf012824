"""Verifying an OpenSSF model signature with `cryptography` alone: the inference server has no room for the library that makes it.

Formats: Sigstore bundle v0.3 (JSON) with a public key as verification material; DSSE v1.0.0 (secure-systems-lab/dsse, protocol.md) around
an in-toto Statement v1; predicate `https://model_signing/signature/v1.0` (OpenSSF model signing, payload of version 1).
"""

from __future__ import annotations

import base64
import hashlib
import json
from typing import TYPE_CHECKING, Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from platform_assets.errors import SealError, StateError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PUBLIC_KEY_FILE = "releases.pub.pem"
_PAYLOAD_TYPE, _STATEMENT_TYPE = "application/vnd.in-toto+json", "https://in-toto.io/Statement/v1"
_PREDICATE_TYPE = "https://model_signing/signature/v1.0"
_BUNDLE_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
_HASH_OF_CURVE: dict[str, Callable[[], hashes.HashAlgorithm]] = {
    "secp256r1": hashes.SHA256,
    "secp384r1": hashes.SHA384,
    "secp521r1": hashes.SHA512,
}


def read_public_key(file: Path) -> ec.EllipticCurvePublicKey:
    """Return the key that releases must be signed with."""
    try:
        key = load_pem_public_key(file.read_bytes())
    except FileNotFoundError as error:
        raise SealError(f"there is no public key {file} to verify it with; restore it from a backup", reason="key lost") from error
    except (OSError, ValueError, UnsupportedAlgorithm) as error:
        raise StateError(f"{file} is not a public key in PEM form: {error}") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name not in _HASH_OF_CURVE:
        raise StateError(f"{file} holds no key of P-256, P-384 or P-521; releases are signed with one")
    return key


def fingerprint(key: ec.EllipticCurvePublicKey) -> str:
    """SHA-256 of the key's PEM, as the bundle names its signer."""
    return hashlib.sha256(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def verify_signature(bundle: bytes, *, key: ec.EllipticCurvePublicKey) -> dict[str, str]:
    """Return the SHA-256 of every signed file by its path; SealError says why a signature does not hold."""
    payload, signature, signer = _read_bundle(bundle)
    if signer != fingerprint(key):
        raise SealError(f"it is signed with another key, {signer[:12]}; {fingerprint(key)[:12]} is trusted here", reason="foreign key")
    try:
        key.verify(signature, _encode(payload), ec.ECDSA(_HASH_OF_CURVE[key.curve.name]()))
    except InvalidSignature as error:
        raise SealError("its signature does not hold: what was signed was altered", reason="altered") from error
    return _read_statement(payload)


def _encode(payload: bytes) -> bytes:
    """Pre-authentication encoding of DSSE."""
    kind = _PAYLOAD_TYPE.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


def _read_bundle(content: bytes) -> tuple[bytes, bytes, str]:
    try:
        bundle = json.loads(content)
        envelope = bundle["dsseEnvelope"]
        (signed,) = envelope["signatures"]
        known = (bundle["mediaType"], envelope["payloadType"]) == (_BUNDLE_TYPE, _PAYLOAD_TYPE)
        payload, signature = (base64.b64decode(text, validate=True) for text in (envelope["payload"], signed["sig"]))
        signer = bundle["verificationMaterial"]["publicKey"]["hint"]
        whole = known and isinstance(signer, str)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise SealError("its signature was altered: it is no bundle of a model signature", reason="altered") from error
    if not whole:
        raise SealError("its signature was altered: it is of another format", reason="altered")
    return payload, signature, signer


def _read_statement(payload: bytes) -> dict[str, str]:
    # The signature holds, so this is what the owner of the key wrote: another form is another version, not an attack.
    try:
        statement: dict[str, Any] = json.loads(payload)
        entries = statement["predicate"]["resources"]
        found = {str(entry["name"]): str(entry["digest"]) for entry in entries if entry["algorithm"] == "sha256"}
        known = (statement["_type"], statement["predicateType"]) == (_STATEMENT_TYPE, _PREDICATE_TYPE) and len(found) == len(entries)
    except (ValueError, KeyError, TypeError) as error:
        raise SealError(f"its signature is of a form that is not known here ({error})", reason="foreign form") from error
    if not known:
        raise SealError("its signature is of a form that is not known here; SHA-256 of single files is", reason="foreign form")
    return found
