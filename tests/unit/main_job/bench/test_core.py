"""A row's verdict, and measuring in processes of their own."""

from __future__ import annotations

import pytest

from platform_assets.errors import FalajError
from platform_assets.main_job.bench.core import interleave, judge_row, measured, run_contestant


@pytest.mark.parametrize(
    ("value", "better", "holds"), [(2.0, "lower", True), (2.1, "lower", False), (2.0, "higher", True), (1.9, "higher", False)]
)
def test_a_row_holds_by_what_it_must_be_and_not_by_its_aim(value, better, holds):
    assert judge_row("x", value=value, unit="s", must=2.0, aim=None, better=better)["holds"] is holds


def test_cpu_time_counts_what_was_worked_inside_and_not_what_was_waited():
    with measured() as found:
        sum(range(2_000_000))
    assert 0 < found.cpu_seconds <= found.wall_seconds * 2


def test_contestants_take_turns_and_medians_leave_an_outlier_out():
    turns, values = [], iter([1.0, 9.0, 2.0])
    one = lambda: turns.append("one") or {"seconds": next(values)}  # noqa: E731
    two = lambda: turns.append("two") or {"seconds": 5.0}  # noqa: E731
    assert interleave({"one": one, "two": two}, repeats=3) == {"one": {"seconds": 2.0}, "two": {"seconds": 5.0}}
    assert turns == ["one", "two"] * 3


def test_a_contestant_that_fails_is_told_with_its_own_words():
    with pytest.raises(FalajError, match=r"json\.tool no-such-file ended with"):
        run_contestant("json.tool", ["no-such-file"])
