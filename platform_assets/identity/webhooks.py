"""Signed messages of other programs, as Standard Webhooks 1.0 has them: whose one is, that it is whole, and of now. No socket, no file.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence

from platform_assets.errors import AccessError, RequestError

ID, TIMESTAMP, SIGNATURE = "webhook-id", "webhook-timestamp", "webhook-signature"
TOLERANCE_SECONDS = 300  # what the specification's own libraries take, in either direction
_PREFIX, _VERSION = "whsec_", "v1"
_LEAST_BYTES, _MOST_BYTES = 24, 64  # of a secret, as the specification asks
_NAME = re.compile(r"[A-Za-z0-9_:-]{1,200}")  # no dot: what is signed then has one reading
_SECONDS = re.compile(r"[0-9]{1,12}")
_MOST_SIGNATURES = 10  # while secrets are changed there are two


def read_secret(text: str) -> bytes:
    """Return the key of a secret `whsec_BASE64`. ValueError where it is none, or a weak one; the message holds nothing of it."""
    text = text.strip()
    try:
        key = base64.b64decode(text.removeprefix(_PREFIX), validate=True)
    except binascii.Error:
        key = b""
    if not text.startswith(_PREFIX) or not _LEAST_BYTES <= len(key) <= _MOST_BYTES:
        raise ValueError(f"right would be {_PREFIX} and {_LEAST_BYTES} to {_MOST_BYTES} random bytes in base64")
    return key


def sign_message(name: str, body: bytes, *, at: int, secret: bytes) -> dict[str, str]:
    """Return the headers of a message; `at` is in seconds since the epoch."""
    return {ID: name, TIMESTAMP: str(at), SIGNATURE: f"{_VERSION},{_digest(name, str(at), body, secret)}"}


def check_message(headers: Mapping[str, str], body: bytes, *, secrets: Sequence[bytes], now: float) -> str:
    """Return the name of a message that one of these secrets signed, not long ago.

    AccessError where none did, RequestError where a header is missing or malformed, or the message is too early or too late. Time is
    judged after the signature, so that a stranger learns nothing, not even what this clock says.
    """
    missing = [header for header in (ID, TIMESTAMP, SIGNATURE) if header not in headers]
    if missing:
        raise RequestError(f"the header {missing[0]} is missing; a message is signed as https://www.standardwebhooks.com says")
    name, at = headers[ID], headers[TIMESTAMP]
    if not _NAME.fullmatch(name):
        raise RequestError(f"{ID} must be 1 to 200 letters, digits, hyphens, underscores and colons")
    if not _SECONDS.fullmatch(at):
        raise RequestError(f"{TIMESTAMP} must be whole seconds since 1970")
    said = [one.removeprefix(f"{_VERSION},").encode() for one in headers[SIGNATURE].split(" ") if one.startswith(f"{_VERSION},")]
    # Every pair is compared, each in constant time: how long it takes says nothing of which was close.
    wanted = [_digest(name, at, body, secret).encode() for secret in secrets]
    holds = sum(hmac.compare_digest(one, digest) for one in said[:_MOST_SIGNATURES] for digest in wanted)
    if not holds:
        raise AccessError(f"{SIGNATURE} is of no secret that this sender has here; sign WEBHOOK-ID.WEBHOOK-TIMESTAMP.BODY by HMAC-SHA-256")
    off = int(at) - now
    if abs(off) > TOLERANCE_SECONDS:
        way = "ahead of" if off > 0 else "behind"
        raise RequestError(
            f"{TIMESTAMP} is {abs(off):.0f} s {way} this clock; at most {TOLERANCE_SECONDS} s are taken: sign each attempt anew"
        )
    return name


def _digest(name: str, at: str, body: bytes, secret: bytes) -> str:
    return base64.b64encode(hmac.new(secret, f"{name}.{at}.".encode() + body, hashlib.sha256).digest()).decode()
