"""Spans of time are read and written alike."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from platform_assets.specs.base import ColumnName, Name, format_span, parse_span


@given(st.integers(min_value=0, max_value=10_000_000))
def test_a_span_written_and_read_is_the_same_span(seconds: int) -> None:
    assert parse_span(format_span(timedelta(seconds=seconds))) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "soon", "-1d", "3", "1y", "1d 2h", None, 7])
def test_what_is_no_span_is_refused_with_examples(text: object) -> None:
    with pytest.raises(ValueError, match="write for example 90s, 15m, 6h, 14d or 2w"):
        parse_span(text)


PIECES = st.sampled_from(
    ["..", "/", "\\", "%2e", "\x00", "'", '"', ";", "--", " ", "\n", "`", "$", "{", "a", "drop", "_", "\u0131", "\u202e", "."]
)


@given(st.lists(PIECES, min_size=1, max_size=8).map("".join))
def test_a_name_never_holds_what_a_path_or_a_query_reads_as_its_own(text: str) -> None:
    """Names become folders, tables, columns and parts of addresses."""
    for kind in (Name, ColumnName):
        try:
            found = TypeAdapter(kind).validate_python(text)
        except ValidationError:
            continue
        assert found.isascii()
        assert found.isidentifier()
