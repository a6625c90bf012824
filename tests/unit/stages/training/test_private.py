"""A private training from start to end: it learns, ends within what was declared, and a kill makes it count more, never less."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from platform_assets.errors import StageError, TrainingError
from platform_assets.networks.plans import CompressionPlan, PrivacyPlan, RunPlan
from platform_assets.specs.guarantee import Guarantee
from platform_assets.specs.record_json import from_mapping
from platform_assets.stages.compression.search import search
from tests.unit.networks.tiny import TABULAR, Silent, plan, tabular, write_set
from tests.unit.stages.training.starts import finish, reached, slow_draws, start, train_here, wait_for, write_inputs

PRIVACY = PrivacyPlan(epsilon=8.0, delta=1e-5)
PRIVATE = replace(plan("tabular_mlp", epochs=10), dropout=0.0, batch_size=120, learning_rate=0.02, privacy=PRIVACY)


@pytest.fixture(scope="module")
def learnt(tmp_path_factory):
    folder = tmp_path_factory.mktemp("private")
    data = write_set(folder / "data", tabular(4000), TABULAR, shard_rows=2400)
    return data, folder / "out", train_here(data, plan=PRIVATE, out=folder / "out")


def test_it_learns_within_the_declared_epsilon_and_says_what_was_spent(learnt):
    _, out, result = learnt
    assert result.holdout["auroc"] > 0.75
    written = from_mapping(Guarantee, json.loads((out / "result.json").read_text())["privacy"])
    assert written == result.privacy
    assert 7.5 < written.epsilon <= 8.0
    assert (written.steps, written.planned_steps, written.sample_rate) == (200, 200, 0.05)
    assert not (out / "state").exists()


def test_its_loss_over_the_rows_is_told_to_nobody(learnt):
    _, out, _ = learnt
    curve = json.loads((out / "curve.json").read_text())
    assert len(curve) == 10
    assert {name for point in curve for name in point} == {"epoch", "calibration_auroc", "calibration_accuracy", "calibration_log_loss"}


def test_two_trainings_of_one_seed_draw_other_noise(learnt, tmp_path):
    data, _, _ = learnt
    for name in ("one", "other"):
        train_here(data, plan=replace(PRIVATE, epochs=1, batch_size=800), out=tmp_path / name)
    one, other = ((tmp_path / name / "predictions_holdout.npy").read_bytes() for name in ("one", "other"))
    assert one != other


def test_it_begins_from_nothing(learnt, tmp_path):
    data, out, _ = learnt
    with pytest.raises(TrainingError, match=r"begins from nothing: what .* learnt from rows is counted nowhere"):
        train_here(data, plan=PRIVATE, out=tmp_path / "warm", warm=out)


def test_compression_that_looks_at_rows_again_is_refused_of_it(learnt, tmp_path):
    data, out, _ = learnt
    with pytest.raises(StageError, match="trained with differential privacy, and distil, static would look at rows again"):
        search(out, data, CompressionPlan("binary", methods=("distil", "fuse", "static")), work_dir=tmp_path / "search", report=Silent())


def test_a_killed_one_counts_what_it_lost_and_ends_before_the_declared_epsilon(tmp_path):
    write_inputs(tmp_path, training=replace(PRIVATE, epochs=12), run=RunPlan(checkpoint_steps=10, trace_steps=0))
    out = tmp_path / "out"
    first = start(tmp_path, out, before=slow_draws)
    wait_for(lambda: reached(out) >= 25 and (out / "state" / "step-000000020.json").exists(), child=first, seconds=300)
    first.kill()
    first.join()
    at_kill = reached(out)
    counted = json.loads((out / "state" / "private_steps.json").read_text())["steps"]
    assert counted >= at_kill
    assert finish(start(tmp_path, out), seconds=300) == 0
    found = from_mapping(Guarantee, json.loads((out / "result.json").read_text())["privacy"])
    assert found.epsilon <= 8.0
    assert found.steps > counted
    assert found.steps >= found.planned_steps  # those that were lost are among them
