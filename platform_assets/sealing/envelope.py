"""Encryption of one file at rest: AES-256-GCM in segments, under a data key of its own. Wrapping that key is `keyring.py`.

The STREAM construction (Hoang, Reyhanitabar, Rogaway and Vizár 2015, "Online Authenticated-Encryption and its Nonce-Reuse
Misuse-Resistance", section 7): the nonce counts segments and marks the last one, so that none can be left out, doubled, moved or added.
A data key encrypts one file once, so that counting from nought repeats no nonce. A segment bounds what is in memory twice.
"""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from platform_assets.errors import SealError

if TYPE_CHECKING:
    from typing import BinaryIO

SEGMENT_BYTES = 1 << 20
TAG_BYTES = 16
DATA_KEY_BITS = 256


def make_data_key() -> bytes:
    """Return a fresh key for one file, 32 bytes."""
    return AESGCM.generate_key(DATA_KEY_BITS)


def encrypt(source: BinaryIO, target: BinaryIO, *, key: bytes, context: bytes) -> None:
    """Copy `source` to `target` encrypted; `context` says what it is and must be given again to read it."""
    cipher, segment = AESGCM(key), source.read(SEGMENT_BYTES)
    for number in count():
        following = source.read(SEGMENT_BYTES)
        target.write(cipher.encrypt(_nonce(number, is_last=not following), segment, context))
        if not following:
            return
        segment = following


def decrypt(source: BinaryIO, *, key: bytes, context: bytes) -> bytes:
    """Return the whole content; SealError where one bit, the order, the length, the key or the context is another one."""
    cipher, found = AESGCM(key), bytearray()
    segment = source.read(SEGMENT_BYTES + TAG_BYTES)
    for number in count():
        following = source.read(SEGMENT_BYTES + TAG_BYTES)
        try:
            found += cipher.decrypt(_nonce(number, is_last=not following), segment, context)
        except (InvalidTag, ValueError) as error:
            raise SealError(f"its encrypted bytes were altered in segment {number + 1}", reason="altered") from error
        if not following:
            return bytes(found)
        segment = following
    raise AssertionError  # counting has no end


def _nonce(number: int, *, is_last: bool) -> bytes:
    return number.to_bytes(11, "big") + bytes([is_last])
