"""After SIGKILL at most the last second of the log is gone, and the counts say to the row how much that was."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from platform_assets.specs.log_counts import LogCounts
from platform_assets.stages.monitoring.log import parse_segments
from platform_assets.stages.serving.frames import describe, encode, read_rows
from platform_assets.stages.serving.log_counts import CountsFile, read_counts, workers_of
from platform_assets.stages.serving.prediction_log import PredictionLog, close_left_overs, closed_segments
from resources.serving import log_lines
from tests.unit.stages.serving.test_prediction_log import answered

WRITER = """
import os, sys, time
from pathlib import Path
import numpy as np
from platform_assets.specs.records import Feature, FeatureSchema
from platform_assets.stages.serving.frames import PACKED, Answered
from platform_assets.stages.serving.prediction_log import PredictionLog

class Logged:
    def __init__(self, request_id, rows):
        self.request_id, self.rows, self.kind, self.source = request_id, rows, PACKED, np.zeros(rows, np.float32).tobytes()

schema = FeatureSchema((Feature("n", "numeric", "v", "key"),), "y", ("0", "1"), "key", "at")
folder, worker, most, pause = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
if len(sys.argv) > 5:
    import resource
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[5]), int(sys.argv[5])))
log = PredictionLog(folder, worker=worker)
said = ""
for number in range(most):
    rows = 1 + number % 3
    asked = [Logged(f"w{worker}-{os.getpid()}-{number}", rows)]
    log.add(Answered("m", "v", "d", schema, time.time(), asked, np.full((rows, 2), 0.5, np.float32), rows))
    os.write(1, f"{rows} {time.time()}\\n".encode())
    time.sleep(pause)
    said = log.fault or said
log.stop()
os.write(2, f"{log.dropped_rows}|{log.write_errors}|{said}".encode())
"""


def start(folder, worker, *, most=10**9, pause=0.0005, bytes_allowed=None):
    extra = [] if bytes_allowed is None else [str(bytes_allowed)]
    command = [sys.executable, "-c", WRITER, str(folder), str(worker), str(most), str(pause), *extra]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0)


def test_writers_that_are_killed_lose_their_last_second_at_most_and_say_how_many_rows(tmp_path):
    told, killed_at = {}, {}
    writers = {worker: start(tmp_path, worker) for worker in range(3)}
    for worker, writer in writers.items():
        head = os.read(writer.stdout.fileno(), 1)  # it began
        time.sleep(1.2 + 0.13 * worker)
        killed_at[worker] = time.time()
        os.kill(writer.pid, signal.SIGKILL)
        out, _ = writer.communicate()
        told[worker] = [
            (int(rows), float(at)) for rows, at in (line.split() for line in (head + out).decode().splitlines() if line.count(" ") == 1)
        ]
    running = read_counts(tmp_path / "m")
    close_left_overs(tmp_path)
    counts = read_counts(tmp_path / "m")
    rows = [row for segment in closed_segments(tmp_path / "m") for row in read_rows(segment)]
    assert counts.written == len(rows) == len({row["prediction_id"] for row in rows})
    assert counts.accepted == counts.written + counts.lost == running.accepted
    assert running.waiting == running.accepted - running.written >= counts.lost > 0
    for worker, lines in told.items():
        with CountsFile.open(tmp_path / "m", worker=worker) as mine:
            one = mine.read()
        handed_over = sum(count for count, _ in lines)
        assert handed_over <= one.accepted <= handed_over + 3  # killed before it could tell of the newest
        assert one.waiting == 0
        # The last second by the writer's own clock of flushes; another one for a machine that has no time for it.
        assert one.lost <= sum(count for count, at in lines if at > killed_at[worker] - 2.0) + 3
        there = [int(row["request_id"].rsplit("-", 1)[1]) for row in rows if row["request_id"].startswith(f"w{worker}-")]
        assert there == sorted(there)
        assert set(there) == set(range(max(there, default=-1) + 1))  # what is lost is the end, nothing in between
    again = read_counts(tmp_path / "m")
    close_left_overs(tmp_path)
    assert read_counts(tmp_path / "m") == again


def test_all_writers_come_out_as_one_table_by_time_each_row_once(tmp_path):
    first = start(tmp_path, 0, most=60, pause=0.001)
    second = start(tmp_path, 1, most=60, pause=0.001)
    assert (first.wait(), second.wait()) == (0, 0)
    table = parse_segments(log_lines(tmp_path / "m"))
    times = table["time"].to_pylist()
    assert times == sorted(times)
    assert table.num_rows == len(set(table["prediction_id"].to_pylist())) == 240
    assert read_counts(tmp_path / "m") == LogCounts(accepted=240, written=240)
    assert {identity[:3] for identity in table["request_id"].to_pylist()} == {"w0-", "w1-"}


def test_a_full_disk_stops_no_reply_is_said_and_counted_to_the_row(tmp_path):
    writer = start(tmp_path, 0, most=3000, pause=0.0005, bytes_allowed=40_000)
    _, said = writer.communicate()
    dropped, errors, fault = said.decode().split("|")
    assert writer.returncode == 0
    assert int(errors) > 0
    assert fault == "the predictions of m cannot be written: File too large"
    close_left_overs(tmp_path)
    counts = read_counts(tmp_path / "m")
    rows = [row for segment in closed_segments(tmp_path / "m") for row in read_rows(segment)]
    assert counts.accepted == 6000
    assert (counts.written, counts.dropped, counts.lost) == (len(rows), int(dropped), 0)
    assert counts.dropped > 0
    assert counts.missing == 6000 - len(rows)


def test_a_kill_between_a_write_and_its_count_is_seen(tmp_path):
    folder = tmp_path / "tiny"
    runs = [answered(number, rows=2) for number in range(4)]
    with CountsFile.open(folder, worker=5) as counts:
        for run in runs:
            run.first = counts.accept(run.num_rows)
        counts.wrote(2, until=2)
        counts.drop(2)
    whole = describe(runs[0]) + encode(runs[0]) + encode(runs[1])
    (folder / "7-5.open.frames").write_bytes(whole + encode(runs[2])[:-1])
    close_left_overs(tmp_path)
    assert read_counts(folder) == LogCounts(accepted=8, written=4, dropped=2, lost=2)
    assert [len(list(read_rows(file))) for file in closed_segments(folder)] == [4]


def test_a_killed_workers_successor_goes_on_counting_and_tells_of_the_loss(tmp_path):
    with CountsFile.open(tmp_path / "tiny", worker=0) as counts:
        counts.accept(7)
    log = PredictionLog(tmp_path)
    assert log.lost_rows == 7
    log.add(answered(1, rows=2))
    log.stop()
    assert read_counts(tmp_path / "tiny") == LogCounts(accepted=9, written=2, lost=7)
    assert PredictionLog(tmp_path, worker=1).lost_rows == 0
    assert workers_of(tmp_path / "tiny") == [0]


def test_counts_that_were_removed_begin_at_what_the_files_hold(tmp_path):
    folder = tmp_path / "tiny"
    folder.mkdir()
    (folder / "7-0.open.frames").write_bytes(describe(answered(1)) + encode(answered(1, rows=3)))
    (folder / "7-4.open.frames").write_bytes(describe(answered(1)) + encode(answered(1, rows=2)))
    close_left_overs(tmp_path)
    assert read_counts(folder) == LogCounts(accepted=5, written=5)
    assert len(closed_segments(folder)) == 2


def test_a_folder_where_nothing_can_be_kept_is_counted_in_memory(tmp_path):
    log = PredictionLog(tmp_path)
    (tmp_path / "tiny").write_text("a file where the folder should be")
    log.add(answered(1, rows=2))
    assert "the counts of tiny cannot be kept" in log.fault
    log.stop()
    assert (log.dropped_rows, log.fault) == (2, "the predictions of tiny cannot be written: File exists")


@given(st.lists(st.tuples(st.sampled_from(["write", "drop", "kill"]), st.integers(1, 50)), max_size=30))
def test_whatever_happens_every_accepted_row_is_written_dropped_lost_or_waiting(tmp_path_factory, events):
    with CountsFile.open(tmp_path_factory.mktemp("m"), worker=1) as counts:
        for name, rows in events:
            first = counts.accept(rows)
            if name == "write":
                counts.wrote(rows, until=first + rows)
            elif name == "drop":
                counts.drop(rows)
            elif rows % 2:
                assert counts.settle(0) >= rows
            total = counts.read()
            assert total.accepted == total.written + total.missing + total.waiting
            assert total.waiting >= 0
    with pytest.raises(ValueError, match="released"):
        counts.read()
