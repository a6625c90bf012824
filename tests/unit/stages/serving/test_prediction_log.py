"""What the log keeps, and what is left of it after a kill."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from platform_assets.errors import ServingError
from platform_assets.specs.records import Feature, FeatureSchema
from platform_assets.stages.serving.frames import NAMED, PACKED, Answered, describe, encode, read_rows, whole_frames
from platform_assets.stages.serving.log_counts import read_counts
from platform_assets.stages.serving.prediction_log import PredictionLog, close_left_overs, closed_segments

SCHEMA = FeatureSchema((Feature("lead_time", "numeric", "v", "booking_id"),), "y", ("no", "yes"), "booking_id", "booking_date")


@dataclass
class Logged:
    request_id: str
    rows: int
    kind: int
    source: bytes | Callable[[], list]


def answered(number: int, rows: int = 1) -> Answered:
    given = [{"booking_id": f"b{number}.{at}", "booking_date": "2016-01-01", "lead_time": at} for at in range(rows)]
    shares = np.array([[0.25, 0.75]] * rows, dtype=np.float32)
    return Answered("tiny", "abc", "abcdef", SCHEMA, 0.0, [Logged(f"r{number}", rows, NAMED, lambda: given)], shares, rows)


def lines(segments: list[Path]) -> list[dict]:
    return [row for segment in segments for row in read_rows(segment)]


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
    assert int(second[0].stem.split("-")[0]) > int(first[0].stem.split("-")[0])


def test_a_left_over_segment_is_closed_at_start_without_its_torn_frame(tmp_path):
    folder = tmp_path / "tiny"
    folder.mkdir()
    whole = describe(answered(1)) + encode(answered(1)) + encode(answered(2))
    (folder / "7-0.open.frames").write_bytes(whole + encode(answered(3))[:-1])
    (folder / "8-0.open.frames").write_bytes(describe(answered(1))[:10])
    PredictionLog(tmp_path).stop()
    assert [segment.name for segment in closed_segments(folder)] == ["7-0.frames"]
    assert [line["request_id"] for line in lines(closed_segments(folder))] == ["r1", "r2"]
    assert not list(folder.glob("*.open.frames"))


@settings(deadline=None)  # writes files
@given(st.lists(st.tuples(st.booleans(), st.integers(1, 5)), min_size=1, max_size=6), st.data())
def test_whatever_is_cut_off_the_whole_frames_before_it_are_read_as_written(tmp_path_factory, shapes, data):
    random = np.random.default_rng(0)
    requests, values = [], []
    for number, (packed, rows) in enumerate(shapes):
        numbers = random.normal(size=(rows, 1)).astype(np.float32)
        named = [{"lead_time": value} for value in numbers[:, 0].tolist()]
        source = numbers.tobytes() if packed else orjson.dumps({"rows": named})
        requests.append(Logged(f"r{number}", rows, PACKED if packed else NAMED, source))
        values += named
    total = len(values)
    run = Answered("tiny", "abc", "abcdef", SCHEMA, 0.0, requests, random.random((total, 2)).astype(np.float32), total)
    first, second = describe(run) + encode(run), encode(run)
    torn = first + second[: data.draw(st.integers(0, len(second) - 1))]
    assert whole_frames(torn) == len(first)
    file = tmp_path_factory.mktemp("log") / "1.frames"
    file.write_bytes(first)
    found = lines([file])
    assert [line["inputs"] for line in found] == values
    assert [line["probabilities"] for line in found] == run.probabilities.tolist()


def test_a_damaged_segment_is_named_with_the_place(tmp_path):
    content = bytearray(describe(answered(1)) + encode(answered(1)))
    content[-1] ^= 1
    (tmp_path / "1.frames").write_bytes(content)
    with pytest.raises(ServingError, match=r"1\.frames is damaged at byte"):
        lines([tmp_path / "1.frames"])


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


def test_what_counts_as_written_is_on_the_disk_before_the_power_can_go(tmp_path, monkeypatch):
    on_disk: dict[str, bytes] = {}
    sync = os.fdatasync

    def remember(descriptor: int) -> None:
        sync(descriptor)
        file = Path(f"/proc/self/fd/{descriptor}").readlink()
        on_disk[file.name] = file.read_bytes()

    monkeypatch.setattr(os, "fdatasync", remember)
    log = PredictionLog(tmp_path, to_disk=True)
    for number in range(3):
        log.add(answered(number))
        log.rotate("other").result(timeout=10)  # what was handed over before is written by now
    counts, (name, content) = read_counts(tmp_path / "tiny"), on_disk.popitem()
    log.stop()
    after = tmp_path / "after" / "tiny"
    after.mkdir(parents=True)
    (after / name).write_bytes(content + b"\0" * 512)  # a file system may give a torn end back as zeroes
    close_left_overs(tmp_path / "after")
    assert counts.written == len(lines(closed_segments(after))) == 3


def test_a_segment_is_closed_by_age_without_a_word_from_anybody(tmp_path):
    log = PredictionLog(tmp_path, close_seconds=0.0)
    log.add(answered(1))
    log.rotate("other").result(timeout=10)
    assert [line["request_id"] for line in lines(closed_segments(tmp_path / "tiny"))] == ["r1"]
    log.stop()
