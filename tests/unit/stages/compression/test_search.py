"""The search: compositions are tried within a budget, faults are rejections with their reason, a killed search goes on."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace

import numpy as np
import pytest

from platform_assets.errors import TrainingError
from platform_assets.networks.plans import CompressionPlan
from platform_assets.specs.candidates import Candidate, SearchResult
from platform_assets.specs.record_json import from_mapping, read_record
from platform_assets.stages.compression import search as room
from platform_assets.stages.compression.measure import INVARIANCE, answer, feeds, find_batch_difference, open_session
from platform_assets.stages.compression.methods import read_steps
from platform_assets.stages.compression.search import best_of_families, rank, search
from platform_assets.stages.compression.workshop import Part, Workshop
from tests.unit.networks.tiny import CASES, Silent, plan, write_set
from tests.unit.stages.training.starts import train_here


class Heard(Silent):
    """A report that is kept."""

    def __init__(self):
        self.steps = []

    def step(self, name, **figures):
        self.steps.append((name, figures))


@pytest.fixture(scope="module", params=["tabular_transformer", "vision_transformer"])
def searched(request, tmp_path_factory):
    make, schema, kind = CASES[request.param]
    root = tmp_path_factory.mktemp(request.param)
    data = write_set(root / "data", make(), schema)
    train_here(data, plan=replace(plan(request.param, kind=kind), epochs=8), out=root / "training")
    told = CompressionPlan(kind, budget_seconds=18, tolerate_drop=0.1, group_drop=0.9, aed_per_core_hour=0.2, batch_sizes=(1, 3, 32))
    candidates, rejected = search(root / "training", data, told, work_dir=root / "work", report=Silent())
    return root, data, told, {one.name: one for one in candidates}, {one.name: one.why for one in rejected}


def test_every_candidate_stands_with_its_figures_and_what_it_costs(searched):
    root, _, told, candidates, _ = searched
    assert "teacher" in candidates
    assert len(candidates) > 4
    for name, one in candidates.items():
        assert read_record(Candidate, (root / "work" / "candidates" / name / "candidate.json").read_bytes()) == one
        assert (root / "work" / "candidates" / name / "model.onnx").stat().st_size == one.size_bytes
        assert one.cpu_us_b1_range[0] <= one.cpu_us_b1 <= one.cpu_us_b1_range[1]
        assert one.cpu_us_b32_range[0] <= one.cpu_us_b32 <= one.cpu_us_b32_range[1]
        assert one.latency_ms_p99 >= one.latency_ms_p50 > 0
        assert one.aed_per_million == pytest.approx(one.cpu_us_b1 * told.aed_per_core_hour / 3600)
        assert one.faithfulness.batch_difference <= INVARIANCE
    assert candidates["teacher"].drop == candidates["teacher"].holdout_drop == 0
    assert candidates["teacher"].max_difference < 1e-5


def test_compositions_are_smaller_than_what_they_are_made_of(searched, tmp_path):
    root, data, told, candidates, _ = searched
    # Nothing learns: it takes a moment, and is never short of time.
    found, _ = search(
        root / "training", data, replace(told, methods=("fuse", "pack"), budget_seconds=12), work_dir=tmp_path, report=Silent()
    )
    files = {one.name: one.size_bytes for one in found}
    assert {"fuse", "fuse+pack-8", "pack-8"} <= set(files)
    assert files["pack-8"] < files["teacher"]
    for sizes in (files, {name: one.size_bytes for name, one in candidates.items()}):
        packed = [name for name in sizes if name.endswith("+pack-8") and name.removesuffix("+pack-8") in sizes]
        assert all(sizes[name] < sizes[name.removesuffix("+pack-8")] for name in packed)


def test_every_form_that_was_not_measured_has_a_reason(searched):
    root, _, told, candidates, rejected = searched
    starts = room.list_starts(room.load_trained(root / "training"), told.methods)
    assert all(name in rejected or any(one.startswith(name) for one in candidates) for name in starts)
    assert all(rejected.values())


def test_dynamic_int8_leans_on_a_rows_neighbours_and_is_refused_for_it(searched, tmp_path):
    root, data, told, *_ = searched
    told = replace(told, methods=("dynamic",), budget_seconds=12)  # nothing learns: it takes a moment, and is never short of time
    candidates, rejected = search(root / "training", data, told, work_dir=tmp_path, report=Silent())
    assert [one.name for one in candidates] == ["teacher"]
    assert "a row alone and in a batch differ by" in {one.name: one.why for one in rejected}["dynamic"]


def test_the_budget_holds_files_and_their_measuring_too(searched, tmp_path):
    """Where it is short, the first file of each part is made and the others are named."""
    root, data, told, *_ = searched
    told = replace(told, methods=("int8", "static", "dynamic"), budget_seconds=0)
    candidates, rejected = search(root / "training", data, told, work_dir=tmp_path, report=Silent())
    assert [one.name for one in candidates] == ["teacher"]
    assert {one.name for one in rejected} == {"int8", "static", "int8-4", "dynamic", "dynamic-c"}
    assert {one.why for one in rejected} == {"there is no time for it within the budget of 0 s"}


def test_no_candidate_answers_differently_in_company(searched):
    root, data, _, candidates, _ = searched
    rows = feeds(room.read_rows(data, "holdout", schema=room.load_trained(root / "training").schema))
    for name in candidates:
        session = open_session(root / "work" / "candidates" / name / "model.onnx", threads=1)
        assert find_batch_difference(session, rows, sizes=(1, 5, 200)) < INVARIANCE, name


def test_the_holdout_decides_nothing(searched, tmp_path, monkeypatch):
    """The split is not even read until the last file is made."""
    root, data, told, *_ = searched
    read, order = room.read_rows, []
    made = Workshop.finish

    def note_split(folder, split, *, schema):
        order.append(split)
        return read(folder, split, schema=schema)

    def note_file(self, name):
        order.append(name)
        return made(self, name)

    monkeypatch.setattr(room, "read_rows", note_split)
    monkeypatch.setattr(Workshop, "finish", note_file)
    search(root / "training", data, replace(told, methods=("distil", "pack"), budget_seconds=1), work_dir=tmp_path, report=Silent())
    assert order.count("holdout") == 1
    assert order[-1] == "holdout"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    make, schema, kind = CASES["vision_transformer"]
    root = tmp_path_factory.mktemp("pictures")
    data = write_set(root / "data", make(), schema)
    train_here(data, plan=replace(plan("vision_transformer", kind=kind), epochs=8), out=root / "training")
    return root / "training", data, CompressionPlan(kind, budget_seconds=2, tolerate_drop=1.0, group_drop=0.9)


def _search(pictures, work, **changes):
    training, data, told = pictures
    candidates, rejected = search(training, data, replace(told, **changes), work_dir=work, report=Silent())
    return {one.name for one in candidates}, {one.name: one.why for one in rejected}


def test_a_method_that_is_not_declared_is_not_tried(pictures, tmp_path):
    candidates, rejected = _search(pictures, tmp_path, methods=("prune",))
    assert {name.split("-")[0] for name in (*candidates, *rejected)} == {"teacher", "prune"}


def test_a_form_that_costs_more_than_the_teacher_is_not_taught(pictures, tmp_path, monkeypatch):
    monkeypatch.setattr(room, "list_starts", lambda *_: ["distil-w4000d4", "distil-w16d1"])
    _, rejected = _search(pictures, tmp_path, methods=("distil",))
    assert "before it has learnt anything" in rejected["distil-w4000d4"]
    assert not (tmp_path / "parts" / "distil-w4000d4" / "part.pt").exists()


def test_a_student_that_diverges_is_rejected_and_the_others_go_on(pictures, tmp_path, monkeypatch):
    from platform_assets.stages.compression.methods import distil

    monkeypatch.setattr(distil, "RATE", 1e30)
    candidates, rejected = _search(pictures, tmp_path, methods=("distil", "prune"))
    assert "not finite" in rejected["distil-s12"]
    assert "teacher" in candidates
    assert "prune-50" in candidates or "not finite" not in rejected["prune-50"]


def test_an_operator_that_the_runtime_lacks_is_rejected_with_its_name(pictures, tmp_path, monkeypatch):
    import onnx

    from platform_assets.stages.compression.methods import fuse

    def write(source, target, option, bench):
        model = onnx.load(source)
        model.graph.node[-1].op_type, model.graph.node[-1].domain = "Teleport", "of.tomorrow"
        model.opset_import.append(onnx.helper.make_opsetid("of.tomorrow", 1))
        target.write_bytes(model.SerializeToString())

    monkeypatch.setattr(fuse, "write", write)
    candidates, rejected = _search(pictures, tmp_path, methods=("fuse",))
    assert candidates == {"teacher"}
    assert "Teleport" in rejected["fuse"]


def test_few_bits_that_are_slower_than_float_are_rejected_with_both_times(pictures, tmp_path, monkeypatch):
    def time_them(sessions, **how):
        found = measured(sessions, **how)
        slow = {"cpu_us_b1": 1e4, "cpu_us_b32": 1e4, "cpu_us_b1_range": (9e3, 1.1e4), "cpu_us_b32_range": (9e3, 1.1e4)}
        return {name: replace(one, **slow) if name == "static" else one for name, one in found.items()}

    measured = room.time_sessions
    monkeypatch.setattr(room, "time_sessions", time_them)
    _, rejected = _search(pictures, tmp_path, methods=("static",))
    assert "slower than float on this CPU: 10000" in rejected["static"]


def test_a_teacher_that_cannot_be_read_is_an_error(tmp_path, pictures):
    _, data, told = pictures
    with pytest.raises(TrainingError, match="train the model first"):
        search(tmp_path, data, told, work_dir=tmp_path / "work", report=Silent())


def test_halving_keeps_what_no_other_beats_in_everything():
    parts = [
        Part("good", None, drop=0.0, cpu_us_b1=9.0, cpu_us_b32=1.0, size_bytes=900),
        Part("cheap", None, drop=0.02, cpu_us_b1=5.0, cpu_us_b32=0.5, size_bytes=100),
        Part("beaten", None, drop=0.03, cpu_us_b1=9.5, cpu_us_b32=1.1, size_bytes=950),
        Part("chance", None, drop=0.004, cpu_us_b1=8.0, cpu_us_b32=0.9, size_bytes=800),
    ]
    assert [one.name for one in rank(parts, tolerate=0.01)] == ["chance", "cheap", "good", "beaten"]


def test_halving_leaves_some_of_each_family_whatever_the_others_do():
    names = ["distil-w64d1", "distil-w48d1", "distil-w32d1", "prune-50", "distil-s12", "distil-s8", "exit-1"]
    ranked = [Part(name, None) for name in names]
    assert [one.name for one in best_of_families(ranked, most=2)] == ["distil-w64d1", "distil-w48d1", "prune-50", "distil-s12", "distil-s8"]
    assert [one.name for one in best_of_families(ranked, most=6)] == [*names[:6]]


@pytest.mark.slow
def test_a_killed_search_goes_on_with_what_it_had(pictures, tmp_path):
    training, data, told = pictures
    told = replace(told, methods=("distil", "pack"), budget_seconds=6)
    (tmp_path / "spec.json").write_text(json.dumps(asdict(told)))
    out = tmp_path / "out"
    command = [
        sys.executable, "-m", "platform_assets.stages.compression", "--training", str(training), "--data", str(data),
        "--spec", str(tmp_path / "spec.json"), "--out", str(out), "--threads", "1",
    ]  # fmt: skip
    first = subprocess.Popen(command)
    learnt = out / "parts" / "distil-w64d1" / "figures.json"
    deadline = time.monotonic() + 60
    while not learnt.is_file() and first.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    first.send_signal(signal.SIGKILL)
    first.wait()
    spent = json.loads((out / "spent.json").read_text())["seconds"]
    rounds = json.loads(learnt.read_text())["rounds"]
    heard = Heard()
    found = room._Search(training, data, told, work_dir=out, report=heard)
    assert found._workshop.part("distil-w64d1").rounds == rounds
    assert found._clock.spent > spent
    assert np.isfinite(answer(open_session(out / "parts" / "distil-w64d1" / "now.onnx", threads=1), found._inputs)).all()
    subprocess.run(command, check=True)
    result = json.loads((out / "result.json").read_text())
    kept = from_mapping(SearchResult, {name: result[name] for name in ("candidates", "rejected")})
    assert "teacher" in {one.name for one in kept.candidates}
    assert {read_steps(one.name)[0].method for one in kept.candidates if one.name != "teacher"} == {"distil", "pack"}
