"""JWTs, checked: RFC 7519 and the advice of RFC 8725. Fetching keys and minting belong to `resources`.

A token is taken from one of the known issuers alone, under one of that issuer's public keys, with an algorithm that fits the key;
`none` and every symmetric algorithm are out, whatever the header says.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jwt

from platform_assets.errors import AccessError

LEEWAY_SECONDS = 30
_MOST_CHARACTERS = 16_384
_REQUIRED = ["exp", "iat", "iss", "aud", "sub"]
# Which algorithms a key may have signed with (RFC 8725, 3.1 and 3.2); a key type that is missing verifies nothing.
_FAMILIES = {"RSA": ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"), "EC": ("ES256", "ES384", "ES512"), "OKP": ("EdDSA",)}
_REASONS: tuple[tuple[type[Exception], str], ...] = (
    (jwt.ExpiredSignatureError, "expired"),
    (jwt.ImmatureSignatureError, "not valid yet"),
    (jwt.InvalidAudienceError, "wrong audience"),
    (jwt.InvalidIssuerError, "wrong issuer"),
    (jwt.MissingRequiredClaimError, "claim missing"),
    (jwt.InvalidAlgorithmError, "wrong algorithm"),
    (jwt.InvalidSignatureError, "wrong signature"),
)


class TokenError(AccessError):
    """A token that is not taken; `reason` says why in a word or two."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True)
class Issuer:
    """Who may say who somebody is: its name (`iss`), whom its tokens are for (`aud`), its public keys by key id."""

    name: str
    audience: str
    keys: Mapping[str, jwt.PyJWK]


def read_jwks(document: Any) -> dict[str, jwt.PyJWK]:
    """Return the signing keys of a JWK set (RFC 7517) by key id; others are left out. AccessError where it is no set."""
    entries = document.get("keys") if isinstance(document, Mapping) else None
    if not isinstance(entries, list):
        raise AccessError("the issuer's JWKS must be an object with a list of keys")
    found = {}
    for entry in entries:
        if isinstance(entry, Mapping) and entry.get("kty") in _FAMILIES and entry.get("use", "sig") == "sig" and "d" not in entry:
            try:
                found[str(entry.get("kid", ""))] = jwt.PyJWK(dict(entry))
            except jwt.PyJWTError:  # a curve or type that nobody here can check
                continue
    return found


def peek(token: str) -> tuple[str, str]:
    """Return (issuer, key id) as the token claims them, unverified: they choose the key, nothing else. TokenError where it is no JWT."""
    if len(token) > _MOST_CHARACTERS:
        raise TokenError("malformed", f"the token has {len(token)} characters; {_MOST_CHARACTERS} are the most")
    try:
        header = jwt.get_unverified_header(token)
        claims = jwt.decode(token, options={"verify_signature": False})
    except (jwt.PyJWTError, UnicodeError, ValueError, TypeError, RecursionError):
        raise TokenError("malformed", "the token is not valid: it is no JWT") from None
    if str(header.get("alg", "none")).lower() == "none":
        raise TokenError("unsigned", "the token is not valid: it is not signed")
    issuer, key = claims.get("iss"), header.get("kid", "")
    if not isinstance(issuer, str) or not isinstance(key, str):
        raise TokenError("malformed", "the token is not valid: iss and kid must be texts")
    return issuer, key


def verify(token: str, issuers: Mapping[str, Issuer]) -> dict[str, Any]:
    """Return the claims of a token that one of these issuers signed for its audience; TokenError with the reason otherwise."""
    name, key_id = peek(token)
    if name not in issuers:
        raise TokenError("wrong issuer", "the token is not valid: its issuer is not one that is trusted here")
    issuer = issuers[name]
    key = issuer.keys.get(key_id) or (next(iter(issuer.keys.values())) if not key_id and len(issuer.keys) == 1 else None)
    if key is None:
        raise TokenError("wrong key", "the token is not valid: its issuer has no key of that id")
    try:
        return jwt.decode(
            token, key.key, algorithms=list(_FAMILIES[key.key_type or ""]), audience=issuer.audience, issuer=issuer.name,
            leeway=LEEWAY_SECONDS, options={"require": _REQUIRED, "strict_aud": False},
        )  # fmt: skip
    except jwt.PyJWTError as error:
        reason = next((word for kind, word in _REASONS if isinstance(error, kind)), "malformed")
        raise TokenError(reason, f"the token is not valid: {reason}") from None
    except (UnicodeError, ValueError, TypeError, RecursionError):
        raise TokenError("malformed", "the token is not valid: it is no JWT") from None
