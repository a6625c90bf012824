"""Personal data that nobody declared is found by kind and counted; what only resembles it is not; values are never shown."""

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from platform_assets.specs.dataset import Column, Drop
from platform_assets.stages.governance.hunt import hunt, is_emirates_id, is_iban, say

DIGITS = st.text("0123456789", min_size=11, max_size=11)


def found(values, *, name="note", kind="string", **declared):
    rows = pa.table({name: values})
    return [(one.kind, one.rows) for one in hunt(rows, columns={name: Column(type=kind, **declared)})]


def emirates_id(middle):
    """Complete 784 and eleven digits with the check digit that holds."""
    return next(f"784{middle}{digit}" for digit in range(10) if is_emirates_id(f"784{middle}{digit}"))


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("write to a.b+c@mail.example.ae please", "e-mail"),
        ("+971 50 123 4567", "phone"),
        ("call 050-1234567", "phone"),
        ("0049 (0) 30 1234567", "phone"),
        ("AE07 0331 2345 6789 0123 456", "IBAN"),
        ("to DE89370400440532013000.", "IBAN"),
        ("784-1990-1234567-6", "Emirates ID"),
        ("Passport no. N1234567", "passport"),
        ("for Mr. Haddad, late", "name"),
        ("my name is Aisha", "name"),
    ],
)
def test_each_kind_is_found_and_rows_are_counted(text, kind):
    if kind == "Emirates ID":
        text = emirates_id("19901234567")
    assert found([text, "nothing here", text, None]) == [(kind, 2)]


@pytest.mark.parametrize(
    "text",
    [
        "AE08 0331 2345 6789 0123 456", "784199012345670000", "BB", "Online TA", "2024-01-31 10:00:00", "G0000001", "N1234567", "No Deposit",
        "0f8fad5bd9cb469fa16570867728950e", "12345678", "PRT", "room 501-2", "user@host", "1.234,56", "+5", "Transient-Party",
    ],
)  # fmt: skip
def test_what_only_resembles_it_is_left_alone(text):
    assert found([text]) == []


def test_a_columns_name_is_a_hint():
    assert found(["Aisha Haddad"], name="guest_name") == [("name", 1)]
    assert found(["Aisha Haddad"], name="hotel_name") == []
    assert found(["43001234"], name="contact_phone") == [("phone", 1)]
    assert found(["N1234567"], name="passport_number") == [("passport", 1)]


def test_a_whole_number_can_be_an_emirates_id_and_nothing_else():
    number = int(emirates_id("19851234567"))
    assert found([number, 501234567, 12], kind="integer") == [("Emirates ID", 1)]


def test_declared_and_reviewed_columns_are_passed_by():
    assert found(["a@b.example"], personal=Drop()) == []
    assert found(["a@b.example"], not_personal="addresses of our own machines") == []


@given(DIGITS)
def test_exactly_one_check_digit_makes_an_emirates_id(middle):
    assert sum(is_emirates_id(f"784{middle}{digit}") for digit in range(10)) == 1


@given(st.integers(0, 10**19 - 1), st.integers(0, 18), st.integers(1, 9))
def test_an_iban_with_one_wrong_digit_is_none(account, place, by):
    body = f"{account:019d}"
    check = next(check for check in range(2, 99) if is_iban(f"AE{check:02d}{body}"))
    wrong = f"{body[:place]}{(int(body[place]) + by) % 10}{body[place + 1 :]}"
    assert not is_iban(f"AE{check:02d}{wrong}")


def test_the_sentence_names_columns_and_counts_and_shows_no_value():
    rows = pa.table({"note": ["secret.person@mail.example", "x"]})
    sentence = say(hunt(rows, columns={"note": Column(type="string")}), rows=2)
    assert "column note looks like e-mail in 1 of 2 rows" in sentence
    assert "secret" not in sentence
