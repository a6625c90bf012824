"""What the log keeps, and what is left of it after a kill."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from platform_assets.stages.serving.prediction_log import Answered, PredictionLog, closed_segments


def answered(number: int, rows: int = 1) -> Answered:
    given = [{"booking_id": f"b{number}.{at}", "booking_date": "2016-01-01", "lead_time": at} for at in range(rows)]
    return Answered(
        "tiny",
        "abc",
        "abcdef",
        f"r{number}",
        0.0,
        "booking_id",
        "booking_date",
        lambda: given,
        ("no", "yes"),
        np.array([[0.25, 0.75]] * rows),
        rows,
    )


def lines(segments: list[Path]) -> list[dict]:
    return [json.loads(line) for segment in segments for line in segment.read_text().splitlines()]


def test_a_line_holds_the_row_its_answer_and_where_it_came_from(tmp_path):
    log = PredictionLog(tmp_path)
    log.add(answered(1, rows=2))
    found = lines(log.rotate("tiny").result(timeout=10))
    log.stop()
    assert [line["prediction_id"] for line in found] == ["r1:0", "r1:1"]
    assert found[1] == {
        "prediction_id": "r1:1", "request_id": "r1", "model": "tiny", "version": "abc", "digest": "abcdef", "time": "1970-01-01T00:00:00.000000",
        "key": "b1.1", "event_time": "2016-01-01", "inputs": {"lead_time": 1}, "label": "yes", "probabilities": [0.25, 0.75],
    }  # fmt: skip


def test_a_full_segment_is_closed_and_numbers_rise_even_after_a_reader_removed_them(tmp_path):
    log = PredictionLog(tmp_path, segment_bytes=1)
    log.add(answered(1))
    first = log.rotate("tiny").result(timeout=10)
    first[0].unlink()
    log.add(answered(2))
    second = log.rotate("tiny").result(timeout=10)
    log.stop()
    assert len(first) == len(second) == 1
    assert int(second[0].stem) > int(first[0].stem)


def test_a_left_over_segment_is_closed_at_start_without_its_torn_line(tmp_path):
    folder = tmp_path / "tiny"
    folder.mkdir()
    (folder / "7.open.jsonl").write_bytes(b'{"a": 1}\n{"b": 2}\n{"c"')
    (folder / "8.open.jsonl").write_bytes(b'{"torn')
    PredictionLog(tmp_path).stop()
    assert [segment.name for segment in closed_segments(folder)] == ["7.jsonl"]
    assert lines(closed_segments(folder)) == [{"a": 1}, {"b": 2}]
    assert not list(folder.glob("*.open.jsonl"))


def test_beyond_its_bound_it_drops_and_counts_instead_of_waiting(tmp_path, monkeypatch):
    monkeypatch.setattr("platform_assets.stages.serving.prediction_log.MAX_WAITING_ROWS", 10)
    log = PredictionLog(tmp_path)
    log.add(answered(1, rows=11))
    assert log.dropped_rows == 11
    log.stop()


def test_a_folder_that_cannot_be_written_is_counted_and_stops_nothing(tmp_path):
    log = PredictionLog(tmp_path)
    (tmp_path / "tiny").write_text("a file where the folder should be")
    log.add(answered(1))
    log.stop()
    assert (log.dropped_rows, log.write_errors) == (1, 1)
