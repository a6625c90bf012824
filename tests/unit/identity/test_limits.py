from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from platform_assets.identity.limits import Buckets, Lockout


@given(st.lists(st.floats(0, 5), min_size=1, max_size=200))
def test_no_pattern_of_asking_gets_more_than_burst_and_rate(gaps: list[float]) -> None:
    buckets, now, taken = Buckets(per_second=2, burst=5), 0.0, 0
    for gap in gaps:
        now += gap
        taken += buckets.wait_seconds("a", now=now) == 0
    assert taken <= 5 + 2 * now + 1e-6


@given(st.lists(st.floats(0, 5), max_size=50))
def test_waiting_as_long_as_was_said_is_enough(gaps: list[float]) -> None:
    buckets, now = Buckets(per_second=2, burst=2), 0.0
    for gap in gaps:
        now += gap
        wait = buckets.wait_seconds("a", now=now)
        if wait:
            now += wait + 1e-6
            assert buckets.wait_seconds("a", now=now) == 0


def test_one_does_not_pay_for_another_and_strangers_do_not_fill_the_memory() -> None:
    buckets = Buckets(per_second=1, burst=1)
    assert buckets.wait_seconds("a", now=0) == 0
    assert buckets.wait_seconds("b", now=0) == 0
    assert buckets.wait_seconds("a", now=0) > 0
    for number in range(20_000):
        buckets.wait_seconds(str(number), now=0)
    assert len(buckets._known) <= 10_000


def test_ten_failures_lock_an_address_and_each_lock_is_longer() -> None:
    lockout, now, locks = Lockout(), 0.0, []
    for _ in range(8):
        while not lockout.fail("a", now=now):
            assert lockout.wait_seconds("a", now=now) == 0
            now += 0.1
        locks.append(lockout.wait_seconds("a", now=now))
        now += locks[-1]
        assert lockout.wait_seconds("a", now=now) == 0
    assert [round(lock) for lock in locks] == [60, 120, 240, 480, 900, 900, 900, 900]
    assert lockout.wait_seconds("b", now=now) == 0


def test_rare_failures_lock_nobody() -> None:
    lockout = Lockout()
    assert not any(lockout.fail("a", now=10.0 * number) for number in range(100))
