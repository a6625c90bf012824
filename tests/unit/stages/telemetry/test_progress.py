"""Lines of a training's course, read while they are being written."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from platform_assets.stages.telemetry.progress import FILE, progress_lines

SAID = [{"step": "begun", "processes": 2}, {"step": "train/epoch", "epoch": 1, "loss": {"value": 0.5}}, {"step": "done"}]
WRITTEN = b"".join(json.dumps(line).encode() + b"\n" for line in SAID)


def test_nothing_said_is_no_line(tmp_path):
    assert progress_lines(tmp_path) == []


@given(cut=st.integers(0, len(WRITTEN)))
def test_a_look_at_any_moment_sees_the_whole_lines_only(tmp_path_factory, cut):
    folder = tmp_path_factory.mktemp("out")
    (folder / FILE).write_bytes(WRITTEN[:cut])
    assert progress_lines(folder) == SAID[: WRITTEN[:cut].count(b"\n")]


@given(cut=st.integers(1, len(WRITTEN) - 1))
def test_a_line_cut_off_by_a_kill_costs_itself_and_no_more_than_the_next(tmp_path_factory, cut):
    folder = tmp_path_factory.mktemp("out")
    (folder / FILE).write_bytes(WRITTEN[:cut] + WRITTEN)
    assert progress_lines(folder)[-2:] == SAID[1:]
