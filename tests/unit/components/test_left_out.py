from datetime import datetime, timedelta
from types import SimpleNamespace

import pyarrow as pa
import pytest

from platform_assets import keys
from platform_assets.components.left_out import LeftOut, find_left_out
from platform_assets.components.retraining_evidence import FEED_FILE
from platform_assets.errors import ServingError
from platform_assets.specs.feed import FeedFault, FeedReport
from platform_assets.specs.record_json import to_json
from platform_assets.specs.records import DriftPointer
from resources.testing.artifacts import MemoryArtifactStore
from resources.testing.tables import MemoryTableStore

MODEL = SimpleNamespace(name="m", monitoring=SimpleNamespace(window_rows=2))
LINE = (
    '{"prediction_id": "p9", "request_id": "r9", "model": "m", "version": "v", "digest": "d", "time": "2026-02-03T00:00:00", "key": "waits", '
    '"event_time": "2026-02-03T00:00:00", "inputs": {}, "label": "0", "probabilities": [0.5, 0.5]}\n'
)


def log_of(*names):
    times = pa.array([datetime(2026, 1, 1) + timedelta(hours=place) for place in range(len(names))], pa.timestamp("us"))
    return pa.table({"key": list(names), "event_time": times, "time": times, "prediction_id": list(names)})


def step_of(tmp_path, *, log=None, feed=None, segments=()):
    tables, artefacts = MemoryTableStore(), MemoryArtifactStore(tmp_path / "artefacts")
    pointer = None
    if log is not None:
        tables.replace(keys.table_name(keys.model_key("m", "production_log")), log)
    if feed is not None:
        folder = tmp_path / "report"
        folder.mkdir()
        (folder / FEED_FILE).write_text(to_json(feed))
        pointer = DriftPointer(artefacts.put(folder), feed.windows, drifted=False, first_drifted_row=None, evidence="")

    def rotate_log(_):
        if segments is None:
            raise ServingError("nobody answers")
        return segments

    parts = SimpleNamespace(tables=tables, artefacts=artefacts, serving=SimpleNamespace(rotate_log=rotate_log))
    return SimpleNamespace(parts=parts, find=lambda key, _: pointer if key == keys.model_key("m", "drift_report") else None)


def test_before_anything_was_asked_nothing_is_left_out(tmp_path):
    assert find_left_out(MODEL, step_of(tmp_path)) == LeftOut()


def test_faulty_windows_unfilled_ones_and_what_the_server_still_holds_are_left_out(tmp_path):
    segment = tmp_path / "1.jsonl"
    segment.write_text(LINE)
    fault = FeedFault(0, 0, 1, "a", "b", ("unit change",), "the feed is at fault", ("a", "b"))
    feed = FeedReport(2, (fault,), ("2026-01-01 03:00:00",) * 2)
    gone = tmp_path / "2.jsonl"  # the monitor has written it into the log and removed it in between
    found = find_left_out(MODEL, step_of(tmp_path, log=log_of("a", "b", "c", "d", "e"), feed=feed, segments=[segment, gone]))
    assert found == LeftOut(frozenset({"a", "b"}), frozenset({"e", "waits"}))
    assert found.keys == ["a", "b", "e", "waits"]


@pytest.mark.parametrize("segments", [(), None])
def test_without_a_report_every_logged_row_is_left_out_whether_a_server_runs_or_not(tmp_path, segments):
    found = find_left_out(MODEL, step_of(tmp_path, log=log_of("a", "b", "c"), segments=segments))
    assert found.unjudged == {"a", "b", "c"}


def test_only_rows_with_a_label_count_as_left_out():
    rows = pa.table({"id": [1, 2, 3], "y": pa.array([1, None, 0])})
    assert LeftOut(frozenset({"1", "2"}), frozenset({"3", "9"})).among(rows, "id") == LeftOut(frozenset({"1"}), frozenset({"3"}))
