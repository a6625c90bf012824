"""A signed message is taken as it was signed, from whoever holds a secret, and in no other form."""

from __future__ import annotations

import secrets

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from platform_assets.errors import AccessError, RequestError
from platform_assets.identity.webhooks import ID, SIGNATURE, TIMESTAMP, TOLERANCE_SECONDS, check_message, read_secret, sign_message

KEY, OTHER = secrets.token_bytes(32), secrets.token_bytes(32)
NOW = 1_764_150_000


def checked(headers: dict[str, str], body: bytes = b"{}", *, keys: tuple[bytes, ...] = (KEY,), now: float = NOW) -> str:
    return check_message(headers, body, secrets=keys, now=now)


def test_the_specifications_own_example_is_signed_alike():
    signed = sign_message(
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        b'{"test": 2432232314}',
        at=1614265330,
        secret=read_secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
    )
    assert signed[SIGNATURE] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@settings(max_examples=40)
@given(st.from_regex(r"[A-Za-z0-9_:-]{1,200}", fullmatch=True), st.binary(max_size=200), st.integers(-TOLERANCE_SECONDS, TOLERANCE_SECONDS))
def test_what_was_signed_is_taken_within_the_window(name, body, off):
    assert checked(sign_message(name, body, at=NOW + off, secret=KEY), body) == name


@given(st.data(), st.binary(min_size=1, max_size=60))
def test_whatever_is_changed_is_refused(data, body):
    signed = sign_message("msg_1", body, at=NOW, secret=KEY)
    what = data.draw(st.sampled_from(["body", ID, TIMESTAMP, SIGNATURE]))
    if what == "body":
        place = data.draw(st.integers(0, len(body) - 1))
        body = body[:place] + bytes([body[place] ^ data.draw(st.integers(1, 255))]) + body[place + 1 :]
    else:
        changes = {ID: "msg_2", TIMESTAMP: str(NOW + 1), SIGNATURE: "v1," + data.draw(st.text(max_size=60))}
        signed = {**signed, what: changes[what]}
    with pytest.raises(AccessError):
        checked(signed, body)


def test_while_secrets_are_changed_either_is_good_on_either_side():
    old, new = (sign_message("m", b"{}", at=NOW, secret=key) for key in (KEY, OTHER))
    both = {**old, SIGNATURE: f"{new[SIGNATURE]} {old[SIGNATURE]} v1a,of-another-kind"}
    assert [checked(one, keys=(OTHER, KEY)) for one in (old, new)] == ["m", "m"]
    assert checked(both) == checked(both, keys=(OTHER,)) == "m"
    with pytest.raises(AccessError):
        checked(old, keys=(OTHER,))


@pytest.mark.parametrize("off", [-TOLERANCE_SECONDS - 1, TOLERANCE_SECONDS + 1])
def test_too_early_or_late_is_told_with_how_much(off):
    with pytest.raises(RequestError, match=rf"301 s {'ahead of' if off > 0 else 'behind'} this clock; at most 300 s"):
        checked(sign_message("m", b"{}", at=NOW + off, secret=KEY))


def test_a_stranger_is_told_nothing_of_the_clock():
    with pytest.raises(AccessError, match="is of no secret that this sender has here"):
        checked(sign_message("m", b"{}", at=1, secret=OTHER))


@pytest.mark.parametrize(
    ("header", "value", "said"),
    [
        (ID, None, "webhook-id is missing"),
        (TIMESTAMP, None, "webhook-timestamp is missing"),
        (SIGNATURE, None, "webhook-signature is missing"),
        (ID, "a.b", "letters, digits"),
        (ID, "x" * 201, "1 to 200"),
        (TIMESTAMP, "1e9", "whole seconds"),
        (TIMESTAMP, "٣", "whole seconds"),
        (TIMESTAMP, "-5", "whole seconds"),
    ],
)
def test_a_header_that_is_none_is_named(header, value, said):
    signed = {**sign_message("m", b"{}", at=NOW, secret=KEY), header: value}
    with pytest.raises(RequestError, match=said):
        checked({name: one for name, one in signed.items() if one is not None})


@pytest.mark.parametrize("text", ["", "whsec_", "whsec_c2hvcnQ=", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_!!!", "whsec_" + "A" * 120])
def test_a_weak_secret_is_none_and_not_repeated(text):
    with pytest.raises(ValueError, match="right would be whsec_ and 24 to 64 random bytes") as refused:
        read_secret(text)
    assert text == "" or text.removeprefix("whsec_") == "" or text.removeprefix("whsec_") not in str(refused.value)
