"""A file encrypted at rest: what goes in comes out, and nothing else comes out of what was changed."""

from io import BytesIO

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from platform_assets.errors import SealError
from platform_assets.sealing import envelope
from platform_assets.sealing.envelope import TAG_BYTES, decrypt, encrypt, make_data_key

SEGMENT = 16
KEY = make_data_key()


@pytest.fixture(autouse=True)
def _small_segments(monkeypatch):
    monkeypatch.setattr(envelope, "SEGMENT_BYTES", SEGMENT)


def sealed(content: bytes, *, context: bytes = b"c") -> bytes:
    target = BytesIO()
    encrypt(BytesIO(content), target, key=KEY, context=context)
    return target.getvalue()


def opened(content: bytes, *, context: bytes = b"c", key: bytes = KEY) -> bytes:
    return decrypt(BytesIO(content), key=key, context=context)


@settings(max_examples=200)
@given(st.binary(max_size=5 * SEGMENT))
@example(b"")
@example(bytes(SEGMENT))
@example(bytes(2 * SEGMENT))
def test_what_goes_in_comes_out(content):
    assert opened(sealed(content)) == content


@settings(max_examples=200)
@given(st.binary(max_size=4 * SEGMENT), st.data())
def test_any_flipped_bit_is_found(content, data):
    found = bytearray(sealed(content))
    found[data.draw(st.integers(0, len(found) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(SealError, match="altered in segment"):
        opened(bytes(found))


@settings(max_examples=200)
@given(st.binary(min_size=1, max_size=4 * SEGMENT), st.data())
def test_any_other_length_is_found(content, data):
    whole = sealed(content)
    with pytest.raises(SealError):
        opened(whole[: data.draw(st.integers(0, len(whole) - 1))])
    with pytest.raises(SealError):
        opened(whole + data.draw(st.binary(min_size=1, max_size=2 * SEGMENT)))


@given(st.permutations(range(4)), st.lists(st.integers(0, 3), max_size=6))
def test_segments_cannot_be_moved_doubled_or_left_out(order, chosen):
    size = SEGMENT + TAG_BYTES
    whole = sealed(bytes(range(4 * SEGMENT)))
    parts = [whole[at : at + size] for at in range(0, len(whole), size)]
    for numbers in (order, chosen):
        if list(numbers) != [0, 1, 2, 3]:
            with pytest.raises(SealError):
                opened(b"".join(parts[number] for number in numbers))


def test_another_key_or_context_reads_nothing():
    with pytest.raises(SealError):
        opened(sealed(b"x"), context=b"d")
    with pytest.raises(SealError):
        opened(sealed(b"x"), key=make_data_key())
