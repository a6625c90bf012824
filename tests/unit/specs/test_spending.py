"""Prices and calendar months."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from platform_assets.specs.spending import Asked, Entry, Month

months = st.builds(Month, st.integers(1980, 2090), st.integers(1, 12))


def test_a_price_is_of_all_nodes_for_the_time_they_were_held():
    assert Asked(price_aed_per_hour=14.5, nodes=2).price(1800) == pytest.approx(14.5)
    entry = Entry("r", "t", "m", "s", Asked(price_aed_per_hour=10, nodes=2, gpus=8), 0.0, 360.0, 1.0, "done")
    assert (entry.price_aed, entry.gpu_seconds) == (pytest.approx(2.0), 2880)


@given(months)
def test_months_follow_one_another_without_gap_and_overlap(month):
    begins, ends = month.begins.timestamp(), month.next.begins.timestamp()
    assert Month.of(begins) == Month.of(ends - 1) == month
    assert Month.of(ends) == month.next


@given(months)
def test_a_month_is_read_as_it_is_written(month):
    assert Month.parse(str(month)) == month


@pytest.mark.parametrize("text", ["2026", "2026-13", "11-2026", "", "next"])
def test_anything_else_is_no_month(text):
    with pytest.raises(ValueError, match="is not a month; write for example 2026-11"):
        Month.parse(text)
