"""Tokens that must not be taken, and those that must."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from platform_assets.errors import AccessError
from platform_assets.identity.principal import read_principal
from platform_assets.identity.tokens import LEEWAY_SECONDS, Issuer, TokenError, read_jwks, verify

RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC = ec.generate_private_key(ec.SECP256R1())
ED = ed25519.Ed25519PrivateKey.generate()
KEYS = {"rsa": (RSA, RSAAlgorithm, "RS256"), "ec": (EC, ECAlgorithm, "ES256"), "ed": (ED, OKPAlgorithm, "EdDSA")}
JWKS = {"keys": [{**json.loads(kind.to_jwk(key.public_key())), "kid": name, "use": "sig"} for name, (key, kind, _) in KEYS.items()]}
ISSUERS = {"https://idp": Issuer("https://idp", "falaj", read_jwks(JWKS)), "other": Issuer("other", "falaj", {})}


def claims(**more: Any) -> dict[str, Any]:
    now = int(time.time())
    found = {"iss": "https://idp", "aud": "falaj", "sub": "amal", "iat": now, "exp": now + 60, **more}
    return {name: value for name, value in found.items() if value is not None}


def sign(key: str = "ed", *, header: dict[str, Any] | None = None, **more: Any) -> str:
    private, _, algorithm = KEYS[key]
    return jwt.encode(claims(**more), private, algorithm=algorithm, headers={"kid": key, **(header or {})})


def segment(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


@pytest.mark.parametrize("key", list(KEYS))
def test_a_token_of_each_kind_of_key_is_taken(key: str) -> None:
    assert verify(sign(key), ISSUERS)["sub"] == "amal"
    assert verify(sign(key, aud=["other", "falaj"]), ISSUERS)["sub"] == "amal"


def test_clocks_may_differ_by_the_leeway_and_no_more() -> None:
    now = int(time.time())
    assert verify(sign(exp=now - LEEWAY_SECONDS + 10), ISSUERS)
    assert verify(sign(iat=now + LEEWAY_SECONDS - 10, nbf=now + LEEWAY_SECONDS - 10), ISSUERS)


@pytest.mark.parametrize(
    ("reason", "made"),
    [
        ("expired", lambda: sign(exp=int(time.time()) - LEEWAY_SECONDS - 5)),
        ("not valid yet", lambda: sign(nbf=int(time.time()) + 300)),
        ("not valid yet", lambda: sign(iat=int(time.time()) + 300)),
        ("wrong audience", lambda: sign(aud="somebody-else")),
        ("wrong audience", lambda: sign(aud=["a", "b"])),
        ("wrong issuer", lambda: sign(iss="https://evil")),
        ("wrong key", lambda: sign(iss="other")),
        ("wrong key", lambda: sign(header={"kid": "../../etc/passwd"})),
        ("wrong key", lambda: jwt.encode(claims(), ED, algorithm="EdDSA")),
        ("wrong signature", lambda: jwt.encode(claims(), ed25519.Ed25519PrivateKey.generate(), algorithm="EdDSA", headers={"kid": "ed"})),
        ("wrong signature", lambda: ".".join([*sign().split(".")[:2], sign(sub="b").split(".")[2]])),
        ("wrong algorithm", lambda: sign("rsa", header={"kid": "ed"})),
        ("claim missing", lambda: sign(exp=None)),
        ("claim missing", lambda: sign(sub=None)),
        ("claim missing", lambda: sign(aud=None)),
        ("malformed", lambda: sign(iss=None)),
        ("unsigned", lambda: jwt.encode(claims(), None, algorithm="none")),
        ("unsigned", lambda: f"{segment({'alg': 'nOnE'})}.{segment(claims())}."),
        ("malformed", lambda: "a.b.c"),
        ("malformed", lambda: ""),
        ("malformed", lambda: "x" * 20_000),
        ("malformed", lambda: f"{segment({'alg': 'EdDSA', 'kid': ['ed']})}.{segment(claims())}.AA"),
        ("malformed", lambda: f"{segment({'alg': 'EdDSA'})}.{base64.urlsafe_b64encode(b'[' * 9000).decode()}.AA"),
    ],
)
def test_a_token_that_must_not_be_taken_is_refused_with_its_reason(reason: str, made: Any) -> None:
    with pytest.raises(TokenError) as refused:
        verify(made(), ISSUERS)
    assert refused.value.reason == reason


def test_a_public_key_used_as_a_shared_secret_signs_nothing() -> None:
    public = ED.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    for kid in ("ed", "rsa"):
        forged = jwt.encode(claims(), public, algorithm="HS256", headers={"kid": kid})
        with pytest.raises(TokenError) as refused:
            verify(forged, ISSUERS)
        assert refused.value.reason == "wrong algorithm"


def test_private_and_symmetric_keys_of_a_set_verify_nothing() -> None:
    private = json.loads(OKPAlgorithm.to_jwk(ED))
    odd = [
        {**private, "kid": "p"},
        {"kty": "oct", "k": "AAAA", "kid": "s"},
        {**JWKS["keys"][0], "use": "enc"},
        {"kty": "EC", "crv": "no"},
        3,
    ]
    assert read_jwks({"keys": odd}) == {}
    for document in (None, [], {"keys": {}}):
        with pytest.raises(AccessError):
            read_jwks(document)


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_no_bytes_in_place_of_a_token_raise_anything_else(noise: bytes) -> None:
    with pytest.raises(TokenError):
        verify(noise.decode("latin-1"), ISSUERS)


@given(st.integers(0, 2000), st.integers(0, 7))
def test_a_flipped_bit_anywhere_is_refused(place: int, bit: int) -> None:
    token = bytearray(sign().encode())
    place %= len(token) - 1  # the last character has bits that base64 does not use
    token[place] ^= 1 << bit
    with pytest.raises(TokenError):
        verify(token.decode("latin-1"), ISSUERS)


def test_roles_and_tenants_are_read_from_the_named_claims() -> None:
    found = read_principal(
        {**claims(), "realm": {"roles": ["viewer", "superuser"]}, "org": "hotels banks"}, roles="realm.roles", tenants="org"
    )
    assert (found.roles, found.tenants) == ({"viewer"}, {"hotels", "banks"})
    assert read_principal(claims()).roles == frozenset()


@pytest.mark.parametrize("roles", [3, {"admin": True}, ["admin", 3], ["x"] * 100, [["admin"]], True])
def test_a_claim_of_another_shape_is_refused(roles: Any) -> None:
    with pytest.raises(AccessError):
        read_principal({**claims(), "roles": roles})
