"""What every clock promises."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st
from postgres_process import own_database

from resources.clock import SqlClock, SqliteClock
from resources.databases import PostgresDatabase
from resources.testing.state import MemoryClock


@pytest.fixture(params=["sqlite", "postgres", "memory"])
def clock(request, tmp_path):
    if request.param == "postgres":
        return SqlClock(PostgresDatabase(own_database(request.getfixturevalue("postgres"))))
    return SqliteClock(tmp_path / "state.sqlite") if request.param == "sqlite" else MemoryClock()


def test_a_clock_never_moved_shows_the_wall_clock(clock):
    wall = datetime.now(UTC).replace(tzinfo=None)
    assert abs(clock.now("hotels") - wall) < timedelta(minutes=1)


def test_a_clock_may_start_in_the_past_and_then_only_moves_forward(clock):
    assert clock.advance("hotels", datetime(2016, 7, 1)) == datetime(2016, 7, 1)
    assert clock.advance("hotels", datetime(2016, 7, 2, 3, 4, 5, 6)) == datetime(2016, 7, 2, 3, 4, 5, 6)
    assert clock.advance("hotels", datetime(2016, 7, 1)) == datetime(2016, 7, 2, 3, 4, 5, 6)
    assert clock.now("hotels") == datetime(2016, 7, 2, 3, 4, 5, 6)


def test_streams_have_clocks_of_their_own(clock):
    clock.advance("hotels", datetime(2016, 7, 1))
    clock.advance("digits", datetime(2020, 1, 1))
    assert clock.now("hotels") == datetime(2016, 7, 1)


def test_a_time_with_a_zone_is_brought_to_utc(clock):
    assert clock.advance("hotels", datetime(2016, 7, 1, 4, tzinfo=timezone(timedelta(hours=4)))) == datetime(2016, 7, 1)


@given(st.lists(st.datetimes(datetime(1990, 1, 1), datetime(2100, 1, 1)), min_size=1, max_size=20))
def test_a_clock_stands_at_the_latest_time_it_was_told_in_any_order(times):
    clock = MemoryClock()
    for at in times:
        clock.advance("s", at)
    assert clock.now("s") == max(times)


def test_a_clock_is_kept_for_the_next_process(tmp_path):
    SqliteClock(tmp_path / "state.sqlite").advance("hotels", datetime(2016, 7, 1))
    assert SqliteClock(tmp_path / "state.sqlite").now("hotels") == datetime(2016, 7, 1)
