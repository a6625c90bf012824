"""Matching by one sorted search equals the definition of a point-in-time join, whatever the keys, ties, gaps and span of time."""

from __future__ import annotations

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from resources.feast_store.asof import STAMP, Timeline, newest_not_after, newest_of_each

KEYS = st.sampled_from(["a", "b", "c", None])
NUMBERS = st.sampled_from([1, 2, 30, None])
# Both ends of a span that leaves no room for a key beside it, and neighbours, so that ties and one-off faults are hit.
TIMES = st.one_of(st.integers(0, 6), st.sampled_from([-(2**61), 2**61, None]))
ROWS = st.lists(st.tuples(KEYS, NUMBERS, TIMES, st.one_of(st.none(), st.integers(0, 2))), max_size=20)


def timeline(rows, *, created=True):
    columns = list(zip(*rows, strict=True)) or [(), (), (), ()]
    keys = [pa.chunked_array([pa.array(columns[0], pa.string())]), pa.chunked_array([pa.array(columns[1], pa.int64())])]
    stamps, made = (pa.chunked_array([pa.array(values, pa.int64()).cast(STAMP)]) for values in columns[2:])
    return Timeline(keys, stamps, made if created else None)


def newest(rows, moment, *, ttl=0, created=True):
    key, number, at, _ = moment
    if None in (key, number, at):
        return None
    known = [
        (row[2], -1 if row[3] is None or not created else row[3], place)
        for place, row in enumerate(rows)
        if row[:2] == (key, number) and row[2] is not None and row[2] <= at
    ]
    time, _, place = max(known, default=(None, None, None))
    return None if time is None or (ttl and at - time > ttl) else place


@settings(deadline=None)
@given(rows=ROWS, moments=ROWS, ttl=st.integers(0, 4), created=st.booleans())
def test_each_moment_gets_the_newest_row_of_its_key_not_after_it(rows, moments, ttl, created):
    found = newest_not_after(timeline(moments), timeline(rows, created=created), ttl_microseconds=ttl)
    assert found.to_pylist() == [newest(rows, moment, ttl=ttl, created=created) for moment in moments]


@settings(deadline=None)
@given(rows=ROWS)
def test_the_newest_row_of_each_key_is_the_one_a_late_moment_gets(rows):
    keys = {row[:2] for row in rows if None not in row[:3]}
    assert newest_of_each(timeline(rows)).to_pylist() == sorted(newest(rows, (*key, 2**62, None)) for key in keys)


def test_numbers_meet_the_text_that_writes_them():
    numbers, text = (pa.chunked_array([pa.array(values)]) for values in ([7, 8], ["8", "7", "07"]))
    at, then = (pa.chunked_array([pa.array(values, STAMP)]) for values in ([5, 5], [1, 1, 1]))
    assert newest_not_after(Timeline([numbers], at), Timeline([text], then)).to_pylist() == [1, 0]
