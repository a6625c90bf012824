import json
from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from platform_assets.errors import DataError
from platform_assets.specs.feed import FeedReport
from platform_assets.specs.records import Feature, FeatureSchema
from platform_assets.stages.monitoring.drift import Window
from platform_assets.stages.monitoring.log import (
    attach_labels,
    cut_windows,
    end_of,
    in_order,
    number_rows,
    parse_segments,
    stack_probabilities,
    unpack_inputs,
)
from platform_assets.stages.monitoring.performance import measure_window

SCHEMA = FeatureSchema(
    (Feature("price", "numeric", "v", "id"), Feature("channel", "category", "v", "id"), Feature("arrival", "date", "v", "id")),
    "cancelled", ("no", "yes"), "id", "booked",
)  # fmt: skip


def line(n, *, version="v1", score=0.5):
    return {
        "prediction_id": f"r{n}:0", "request_id": f"r{n}", "model": "m", "version": version, "digest": "d", "time": f"2026-01-01T00:00:{n % 60:02d}",
        "key": n, "event_time": f"2016-07-{1 + n % 28:02d}", "inputs": {"price": n, "channel": None, "arrival": "2016-08-01T00:00:00+04:00"},
        "label": "no", "probabilities": {"no": 1 - score, "yes": score},
    }  # fmt: skip


def write(path, lines, torn=""):
    path.write_text("".join(json.dumps(one) + "\n" for one in lines) + torn)
    return path


def test_segments_become_one_table_with_typed_inputs(tmp_path):
    log = parse_segments([write(tmp_path / "1.jsonl", [line(1)]), write(tmp_path / "2.jsonl", [line(2, score=0.9)])])
    assert log["prediction_id"].to_pylist() == ["r1:0", "r2:0"]
    assert log["key"].to_pylist() == ["1", "2"]
    assert stack_probabilities(log).tolist() == [[0.5, 0.5], [1 - 0.9, 0.9]]
    inputs = unpack_inputs(log, schema=SCHEMA)
    assert inputs["price"].to_pylist() == [1.0, 2.0]
    assert inputs["channel"].to_pylist() == [None, None]
    assert str(inputs["arrival"][0].as_py()) == "2016-07-31 20:00:00"
    assert inputs["booked"].type == pa.timestamp("us")


NUMBERS = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)


@given(st.lists(NUMBERS | st.sampled_from(["1", "-2.5e3", " 7 "]), min_size=1, max_size=8), st.text())
def test_what_was_sent_is_read_as_python_reads_it(values, word):
    columns = (Feature("price", "numeric", "v", "id"), Feature("channel", "category", "v", "id"))
    schema = replace(SCHEMA, features=columns)
    inputs = [json.dumps({"price": value, "channel": word}, sort_keys=True, separators=(",", ":")) for value in values]
    found = unpack_inputs(pa.table({"inputs": inputs, "event_time": [datetime(2026, 1, 1)] * len(values)}), schema=schema)
    assert found["price"].to_pylist() == [None if value is None else float(value) for value in values]
    assert found["channel"].to_pylist() == [word] * len(values)


def test_a_torn_last_line_is_left_out_and_an_empty_segment_is_no_rows(tmp_path):
    torn = write(tmp_path / "1.jsonl", [line(1)], torn='{"prediction_id": "r2')
    assert parse_segments([torn, write(tmp_path / "2.jsonl", [])]).num_rows == 1


def test_a_bad_line_elsewhere_names_file_and_line(tmp_path):
    with pytest.raises(DataError, match=r"1\.jsonl: line 1 is not a logged prediction"):
        parse_segments([write(tmp_path / "1.jsonl", [{"model": "m"}, line(2)])])


def test_windows_follow_event_order_are_full_and_go_on_where_they_stopped(tmp_path):
    log = parse_segments([write(tmp_path / "1.jsonl", [line(n, version="v1" if n < 20 else "v2") for n in range(28)][::-1])])
    windows = list(cut_windows(log, window_rows=10))
    assert [(w.index, w.first_row, w.last_row, w.versions) for w, _ in windows] == [(0, 0, 9, ("v1",)), (1, 10, 19, ("v1",))]
    assert windows[0][1]["key"].to_pylist() == [str(n) for n in range(10)]
    judged = FeedReport(1, seen_until=("2030-01-01",), ends=(end_of(windows[0][1]),))
    again = list(cut_windows(log, window_rows=10, feed=judged))
    assert [(w.index, rows["key"].to_pylist()) for w, rows in again] == [(w.index, rows["key"].to_pylist()) for w, rows in windows]


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 30), max_size=9), min_size=1, max_size=6),
    st.sets(st.integers(0, 50)),
    st.integers(0, 3),
)
def test_a_window_is_the_same_rows_for_ever_whatever_is_erased_and_however_late_others_come(batches, erased, by_position):
    """Each batch is one look: rows by the minute of their event, one answer a second."""
    events = [minute for batch in batches for minute in batch]
    whole = pa.table({
        "prediction_id": [f"r{place:03}" for place in range(len(events))], "version": pa.array(["v"] * len(events), pa.string()),
        "event_time": pa.array([datetime(2026, 1, 1) + timedelta(minutes=minute) for minute in events], pa.timestamp("us")),
        "time": pa.array([datetime(2026, 2, 1) + timedelta(seconds=place) for place in range(len(events))], pa.timestamp("us")),
    })  # fmt: skip
    feed, came, judged, kept = FeedReport(), 0, [], set(range(len(events)))
    for look, batch in enumerate(batches):
        came += len(batch)
        if look == len(batches) // 2:
            kept -= erased  # from here on they are gone
        log = whole.take(pa.array([place for place in range(came) if place in kept], pa.int64()))
        for window, rows in cut_windows(log, window_rows=4, feed=feed):
            named = set(rows["prediction_id"].to_pylist())
            if window.index < feed.windows:
                assert named == judged[window.index] & set(log["prediction_id"].to_pylist())
                continue
            assert rows.num_rows == 4
            judged.append(named)
            feed = replace(
                feed,
                windows=window.index + 1,
                seen_until=(*feed.seen_until, str(log["time"].to_pylist()[-1])),
                ends=(*feed.ends, end_of(rows)),
            )
    assert sum(map(len, judged)) == len(set().union(*judged)), "no row is judged twice"
    rest = [number for number in number_rows(in_order(log), window_rows=4, feed=feed) if number < 0]
    assert len(rest) < 4, "every row is judged once a window of the rest is full"
    if not erased & set(range(len(events))):  # reports of before ends were kept are read as they were meant
        older = replace(feed, ends=feed.ends[by_position:])
        if sorted(events) == events:
            assert (
                number_rows(in_order(log), window_rows=4, feed=older).tolist()
                == number_rows(in_order(log), window_rows=4, feed=feed).tolist()
            )


def test_labels_are_attached_once_known_and_only_to_rows_that_wait(tmp_path):
    log = parse_segments([write(tmp_path / "1.jsonl", [line(n) for n in range(3)])])
    known = pa.table({"id": [0, 1, 2], "cancelled": ["no", None, "yes"]})
    found = attach_labels(log, known, key="id", label="cancelled")
    assert dict(zip(found["key"].to_pylist(), found["actual"].to_pylist(), strict=True)) == {"0": "no", "2": "yes"}
    assert attach_labels(found, known, key="id", label="cancelled").num_rows == 0


def performance(labelled, *, good):
    rng = np.random.default_rng(1)
    actual = rng.choice(["no", "yes"], 500)
    score = np.where((actual == "yes") == good, 0.8, 0.2) + rng.normal(0, 0.05, 500)
    table = pa.table({
        "actual": pa.array([value if n < labelled else None for n, value in enumerate(actual)]),
        "probabilities": np.column_stack([1 - score, score]).tolist(),
        "event_time": pa.array(["2016-07-01"] * 500).cast(pa.timestamp("us")),
    })  # fmt: skip
    return measure_window(table, window=Window(0, 0, 499, ("v1",)), classes=("no", "yes"), kind="binary", promised=0.9, drop=0.03)


def test_a_drop_counts_only_once_most_labels_are_in():
    assert (performance(500, good=False).dropped, performance(300, good=False).dropped) == (True, False)
    assert performance(300, good=False).settled is False
    assert (performance(500, good=True).dropped, performance(0, good=True).value) == (False, None)
