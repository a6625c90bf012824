"""The search: candidates are measured, failures are rejections, a killed search goes on."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from dataclasses import asdict

import pytest

from platform_assets.networks.plans import CompressionPlan
from platform_assets.stages.compression import search as room
from platform_assets.stages.compression.measure import INVARIANCE, feeds, judge, open_session
from platform_assets.stages.compression.methods import CompressionRefusedError
from platform_assets.stages.compression.search import search
from tests.unit.networks.tiny import CASES, Silent, plan, write_set
from tests.unit.stages.training.starts import train_here

ALL = ("distil", "prune", "int8", "distil+int8", "prune+int8")


def _possible(training):
    """Give the methods that an architecture allows: convolutions do not become eight bits."""
    convolutional = json.loads((training / "plan.json").read_text())["architecture"] == "convolutional"
    return [name for name in ALL if not convolutional or name not in {"int8", "prune+int8"}]


@pytest.fixture(scope="module", params=["tabular_transformer", "convolutional"])
def trained(request, tmp_path_factory):
    make, schema, kind = CASES[request.param]
    root = tmp_path_factory.mktemp(request.param)
    data = write_set(root / "data", make(), schema)
    train_here(data, plan=plan(request.param, kind=kind), out=root / "training")
    return root / "training", data, CompressionPlan(kind, student_width=32, student_epochs=2)


def test_every_declared_candidate_is_made_and_measured_beside_the_teacher(trained, tmp_path):
    training, data, told = trained
    candidates, rejected = search(training, data, told, work_dir=tmp_path, report=Silent())
    found = {candidate.name: candidate for candidate in candidates}
    assert set(found) == {"teacher", *_possible(training)}
    assert {entry.name for entry in rejected} == set(ALL) - set(_possible(training))
    assert all("convolutions stay in float" in entry.why for entry in rejected)
    assert found["teacher"].drop == 0
    assert found["teacher"].max_difference < 1e-5
    assert found["prune"].parameters < found["teacher"].parameters
    assert found["distil+int8"].size_bytes < found["distil"].size_bytes
    assert "int8" not in found or found["int8"].size_bytes < found["teacher"].size_bytes
    assert all(candidate.latency_ms_p99 >= candidate.latency_ms_p50 > 0 and candidate.cpu_us_b1 > 0 for candidate in candidates)


def test_no_candidate_answers_differently_in_company(trained, tmp_path):
    training, data, told = trained
    search(training, data, told, work_dir=tmp_path, report=Silent())
    teacher = room.load_trained(training)
    rows = room.read_rows(data, "holdout", schema=teacher.schema)
    for name in ("teacher", *_possible(training)):
        session = open_session(tmp_path / "candidates" / name / "model.onnx", threads=1)
        assert judge(session, rows=rows, teacher=session.run(None, feeds(rows))[0], kind=told.kind).batch_difference < INVARIANCE


def test_a_method_that_fails_is_a_rejection_with_its_reason(trained, tmp_path, monkeypatch):
    def refuse(_):
        raise CompressionRefusedError("this architecture cannot be cut")

    monkeypatch.setitem(room.NETWORK_METHODS, "prune", refuse)
    training, data, told = trained
    candidates, rejected = search(training, data, told, work_dir=tmp_path, report=Silent())
    possible = [name for name in _possible(training) if "prune" not in name]
    assert {entry.name for entry in rejected if "cannot be cut" in entry.why} == {"prune", "prune+int8"}
    assert {candidate.name for candidate in candidates} == {"teacher", *possible}


@pytest.mark.slow
@pytest.mark.parametrize("trained", ["vision_transformer"], indirect=True)
def test_a_killed_search_goes_on_with_what_it_had(trained, tmp_path):
    training, data, told = trained
    (tmp_path / "spec.json").write_text(json.dumps(asdict(told)))
    out = tmp_path / "out"
    command = [
        sys.executable, "-m", "platform_assets.stages.compression", "--training", str(training), "--data", str(data),
        "--spec", str(tmp_path / "spec.json"), "--out", str(out), "--threads", "1",
    ]  # fmt: skip
    first = subprocess.Popen(command)
    student = out / "parts" / "distil" / "model.onnx"
    deadline = time.monotonic() + 60
    while not student.is_file() and first.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert student.is_file()
    made_at = student.stat().st_mtime_ns
    subprocess.run(command, check=True)
    assert student.stat().st_mtime_ns == made_at
    result = json.loads((out / "result.json").read_text())
    assert {candidate["name"] for candidate in result["candidates"]} == {"teacher", *ALL}
