"""The area `compression`: what is chosen, and how it is judged; a short search on tiny data, whole."""

from __future__ import annotations

from dataclasses import replace

import pytest

from platform_assets.main_job.bench.compression import choose, judge_frontier, measure_subject
from platform_assets.main_job.bench.compression_teachers import Subject
from platform_assets.specs.candidates import Candidate, SearchResult
from tests.unit.networks.tiny import CASES, plan, write_set


def _one(name, *, drop=0.0, holdout_drop=0.0, cpu=100.0, size=10_000):
    return Candidate(
        name, name, size, 1, {"auroc": 0.9 - holdout_drop}, drop, cpu, cpu / 10, 0.1, 0.2, 0.0, 1.0, holdout_drop=holdout_drop
    )  # fmt: skip


FOUND = SearchResult(
    (
        _one("teacher"), _one("prune-50", drop=0.001, cpu=50.0), _one("distil-w8d1", drop=0.008, holdout_drop=0.02, cpu=10.0),
        _one("distil-w8d1+pack-8", drop=0.004, holdout_drop=0.003, cpu=10.0, size=200),
    ), (),
)  # fmt: skip


def _judged(tolerance, demands):
    rows = judge_frontier("m", FOUND, metric="auroc", tolerance=tolerance, demands=demands)
    return {row["what"].rpartition(", ")[2]: row for row in rows[:4]}, rows


def test_the_best_is_chosen_by_the_calibration_rows_and_judged_by_the_holdout():
    assert choose(FOUND.candidates, tolerance=0.005, demands=(6.0, 12.0, 40.0)).name == "distil-w8d1+pack-8"
    assert choose(FOUND.candidates[:3], tolerance=0.005, demands=(1.0, 1.0, 1.0)).name in {"prune-50", "teacher"}
    found, rows = _judged(0.005, (6.0, 12.0, 40.0))
    assert found["auroc lost on the holdout"]["value"] == 0.3
    assert [found[name]["value"] for name in ("CPU a row", "size") if name in found] == [50.0]
    assert [row["holds"] for row in rows] == [True, True, False, True, True]


def test_a_loss_on_the_holdout_beyond_the_tolerance_falls_short():
    found = SearchResult((_one("teacher"), _one("distil-w8d1", drop=0.0, holdout_drop=0.02, cpu=10.0, size=9)), ())
    rows = judge_frontier("m", found, metric="auroc", tolerance=0.01, demands=(1.0, 1.0, 1.0))
    assert rows[0]["value"] == 2.0
    assert rows[0]["holds"] is False


@pytest.mark.slow
def test_a_teacher_is_trained_searched_and_judged_and_nothing_is_made_twice(tmp_path):
    make, schema, kind = CASES["tabular_mlp"]
    told = replace(plan("tabular_mlp", kind=kind), epochs=4)
    subject = Subject("tiny", "tiny", kind, told, lambda folder: write_set(folder, make(), schema), 1.0)
    rows = measure_subject(subject, folder=tmp_path)
    assert {"value", "unit", "against", "must", "aim", "holds"} <= set(rows[0])
    assert any("within 0.5 points" in row["what"] for row in rows)
    stamp = (tmp_path / "search" / "result.json").stat().st_mtime_ns
    assert measure_subject(subject, folder=tmp_path)[1:] == rows[1:]
    assert (tmp_path / "search" / "result.json").stat().st_mtime_ns == stamp
