"""The baseline is tuned without the holdout; pictures are PNG."""

from __future__ import annotations

import numpy as np
import pytest

from platform_assets.specs.candidates import Candidate
from platform_assets.stages.evaluation.baseline import fit_baseline
from platform_assets.stages.evaluation.pictures import calibration_points, draw_frontier, draw_training
from tests.unit.networks.tiny import CASES, plan, write_set
from tests.unit.stages.training.starts import train_here


@pytest.mark.parametrize("case", ["tabular_mlp", "vision_transformer", "text_transformer"])
def test_a_training_has_a_baseline_and_a_picture(tmp_path, case):
    make, schema, kind = CASES[case]
    data = write_set(tmp_path / "data", make(), schema)
    baseline = fit_baseline(data, kind=kind, budget_seconds=0)
    assert baseline.tried == 1
    assert 0 <= baseline.holdout["accuracy"] <= 1
    train_here(data, plan=plan(case, kind=kind, epochs=1), out=tmp_path / "out")
    assert draw_training(tmp_path / "out", data=data, kind=kind).startswith(b"\x89PNG")


def test_the_frontier_is_drawn():
    two = [Candidate(name, "d", 1000, 10, {"auroc": 0.8}, 0.0, 10.0, 1.0, 0.1, 0.2, 0.0, 1.0) for name in ("teacher", "distil")]
    assert draw_frontier(two, kind="binary", front=("distil",), chosen="distil").startswith(b"\x89PNG")


def test_honest_probabilities_lie_on_the_diagonal():
    rng = np.random.default_rng(0)
    said = rng.random(20_000)
    probabilities = np.stack([1 - said, said], axis=1).astype(np.float32)
    mean, true, share = calibration_points(probabilities, labels=(rng.random(20_000) < said).astype(int), kind="binary")
    np.testing.assert_allclose(mean, true, atol=0.05)
    assert share.sum() == pytest.approx(1)
