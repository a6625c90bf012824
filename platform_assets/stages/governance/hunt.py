"""The hunt for personal data that nobody declared: e-mail, phone, IBAN, passport, Emirates ID, names. Rows are counted, values never shown.

What carries a check digit is believed wherever it stands: IBAN (ISO 13616, ISO 7064 mod 97-10) and Emirates ID (784, year of birth, seven
digits, Luhn's digit of ISO/IEC 7812-1). What is only a pattern needs a hint: passports the word itself beside it, names a title or a
phrase before them or a column that says so. Patterns find what is written as usual and nothing else: no finding is no proof of absence.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from platform_assets.specs.dataset import Column

_EMIRATES_DIGITS = 15
_IBAN_LENGTH = (15, 34)
_WORD = r"[A-Z][a-zA-Z'-]+"  # a name's first letter is a capital
_NAME_COLUMN = re.compile(
    r"(^|_)(first|last|full|family|given|middle|maiden|guest|customer|client|contact|holder|passenger|patient|employee|person)_?name$",
    re.IGNORECASE,
)
_PHONE_COLUMN = re.compile(r"(^|_)(phone|mobile|tel|telephone|whatsapp|msisdn)(_|$)", re.IGNORECASE)
_PASSPORT_COLUMN = re.compile(r"passport", re.IGNORECASE)


@dataclass(frozen=True)
class Kind:
    """One kind of personal data: a pattern for RE2, what a hit must fulfil, and the columns whose very name is the hint."""

    name: str
    pattern: str
    holds: Callable[[str], bool] | None = None
    column: re.Pattern[str] | None = None
    in_column: str = ""
    whole_numbers: bool = False


@dataclass(frozen=True)
class Finding:
    """Rows of one column that look like one kind of personal data."""

    column: str
    kind: str
    rows: int


def is_iban(text: str) -> bool:
    """Whether an account number's check digits hold (ISO 7064 mod 97-10)."""
    plain = re.sub(r"\s", "", text).upper()
    if not _IBAN_LENGTH[0] <= len(plain) <= _IBAN_LENGTH[1] or not plain.isascii() or not plain.isalnum():
        return False
    return int("".join(str(int(letter, 36)) for letter in plain[4:] + plain[:4])) % 97 == 1


def is_emirates_id(text: str) -> bool:
    """Whether a number is an Emirates ID: 784, fifteen digits, Luhn's check digit."""
    digits = re.sub(r"[\s-]", "", text)
    if len(digits) != _EMIRATES_DIGITS or not digits.isdecimal() or not digits.startswith("784"):
        return False
    doubled = [int(digit) * (2 if place % 2 else 1) for place, digit in enumerate(reversed(digits))]
    return sum(value - 9 if value > 9 else value for value in doubled) % 10 == 0  # noqa: PLR2004 - Luhn's sum of digits


KINDS = (
    Kind("e-mail", r"[A-Za-z0-9._%+-]+@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*\.[A-Za-z]{2,}"),
    Kind(
        "phone",
        r"(?:^|[^\w+])(?:\+|00)[1-9]\d{0,2}[ .-]?(?:\(\d{1,4}\)[ .-]?)?\d(?:[ .-]?\d){6,11}\b|\b05[024568][ -]?\d{3}[ -]?\d{4}\b",
        column=_PHONE_COLUMN,
        in_column=r"\d(?:[ .()-]*\d){6,}",
    ),
    Kind("IBAN", r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]){11,30}\b", holds=is_iban),
    Kind("Emirates ID", r"\b784[ -]?\d{4}[ -]?\d{7}[ -]?\d\b", holds=is_emirates_id, whole_numbers=True),
    Kind(
        "passport",
        r"(?i)\bpassport\W{0,3}(?:no\.?|number|nr\.?|#)?\W{0,3}[A-Z]{0,2}\d{6,9}\b",
        column=_PASSPORT_COLUMN,
        in_column=r"\w{6,}",
    ),
    Kind(
        "name",
        rf"\b(?:Mr|Mrs|Ms|Miss|Dr|Eng|Sheikh|Sheikha|Mme|Herr|Frau)\.? {_WORD}|\b(?i:my name is|name:|signed by|guest name) {_WORD}",
        column=_NAME_COLUMN,
        in_column=r"\pL{2,}",
    ),
)  # fmt: skip


def hunt(rows: pa.Table, *, columns: Mapping[str, Column]) -> list[Finding]:
    """Return what looks like personal data in columns that are neither declared personal nor reviewed (`not_personal`)."""
    found = []
    for name, column in columns.items():
        if column.personal is not None or column.not_personal or name not in rows.column_names:
            continue
        values = rows[name]
        is_number = pa.types.is_integer(values.type)
        if not (is_number or pa.types.is_string(values.type) or pa.types.is_large_string(values.type)):
            continue
        coded = values.cast(pa.string()).combine_chunks().dictionary_encode()
        counts = dict(zip(*(part.to_pylist() for part in pc.value_counts(coded.indices.drop_null()).flatten()), strict=True))
        for kind in KINDS:
            if is_number and not kind.whole_numbers:
                continue
            hits = _hits(coded.dictionary, kind, column=name)
            total = sum(counts.get(place, 0) for place in hits)
            if total:
                found.append(Finding(name, kind.name, total))
    return found


def say(findings: list[Finding], *, rows: int) -> str:
    """Say what was found, by column, without any value."""
    if not findings:
        return f"none of {rows} rows has what looks like undeclared personal data"
    told = "; ".join(f"column {one.column} looks like {one.kind} in {one.rows} of {rows} rows" for one in findings)
    return f"{told}: declare `personal` with what is to be done, or `not_personal` with the reason"


def _hits(values: pa.Array, kind: Kind, *, column: str) -> list[int]:
    hinted = kind.column is not None and kind.column.search(column) is not None
    pattern = (
        f"{kind.pattern}|{kind.in_column}" if hinted and not kind.pattern.startswith("(?i)") else kind.in_column if hinted else kind.pattern
    )
    places: list[int] = pc.indices_nonzero(pc.match_substring_regex(values, pattern)).to_pylist()
    if kind.holds is None:
        return places
    search = re.compile(kind.pattern)
    return [place for place in places if any(kind.holds(hit[0]) for hit in search.finditer(values[place].as_py()))]
