"""The trainer: every architecture learns, the same seed gives the same weights, a folder is whole or says that it is not."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import asdict, fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from platform_assets.errors import TrainingError
from platform_assets.networks.checkpoint import load_trained
from platform_assets.networks.plans import CompressionPlan, RunPlan, TrainingPlan
from platform_assets.specs.model import CompressionSpec, LearningSpec
from tests.unit.networks.tiny import CASES, TABULAR, plan, tabular, write_set
from tests.unit.stages.training.starts import train_here


@pytest.fixture(autouse=True)
def _two_epochs_leave_the_threads_alone():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("architecture", CASES)
def test_each_architecture_learns_a_tiny_set(tmp_path, architecture):
    make, schema, kind = CASES[architecture]
    data = write_set(tmp_path / "data", make(), schema)
    result = train_here(data, plan=plan(architecture, kind=kind, epochs=10), out=tmp_path / "out")
    curve = json.loads((tmp_path / "out" / "curve.json").read_text())
    assert len(curve) == 10
    assert curve[-1]["train_loss"] < curve[0]["train_loss"]
    assert result.parameters == sum(weight.numel() for weight in load_trained(tmp_path / "out").network.parameters())
    assert json.loads((tmp_path / "out" / "result.json").read_text())["holdout"] == result.holdout


def test_the_same_seed_gives_equal_weights_and_another_seed_others(tmp_path):
    data = write_set(tmp_path / "data", tabular(), TABULAR)
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        train_here(data, plan=plan("tabular_mlp", seed=seed), out=tmp_path / name)
    weights = [torch.load(tmp_path / name / "checkpoint.pt", weights_only=True)["first.weight"] for name in "abc"]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_activations_computed_again_leave_the_weights_as_they_are_bit_for_bit(tmp_path):
    make, schema, kind = CASES["text_transformer"]
    data = write_set(tmp_path / "data", make(), schema)
    for name, again in (("a", False), ("b", True)):
        run = RunPlan(trace_steps=0, gradient_checkpointing=again)
        train_here(data, plan=plan("text_transformer", kind=kind), out=tmp_path / name, run=run)
    one, other = (torch.load(tmp_path / name / "checkpoint.pt", weights_only=True) for name in "ab")
    assert all(torch.equal(weight, other[name]) for name, weight in one.items())


def test_in_mixed_precision_weights_stay_whole_and_answers_near(tmp_path):
    data = write_set(tmp_path / "data", tabular(1500), TABULAR)
    found = {
        precision: train_here(data, plan=replace(plan("tabular_transformer", epochs=10), precision=precision), out=tmp_path / precision)
        for precision in ("32-true", "bf16-mixed")
    }
    said = {name: np.load(tmp_path / name / "predictions_holdout.npy") for name in found}
    weights = torch.load(tmp_path / "bf16-mixed" / "checkpoint.pt", weights_only=True)
    assert {weight.dtype for weight in weights.values()} == {torch.float32}
    assert 0 < np.abs(said["32-true"] - said["bf16-mixed"]).mean() < 0.02
    assert found["bf16-mixed"].holdout["auroc"] == pytest.approx(found["32-true"].holdout["auroc"], abs=0.02)


def can_compile() -> bool:
    """A compiler and Python's headers are there, and the path has no space: torch's own command for g++ does not quote its folders."""
    headers = Path(sysconfig.get_path("include")) / "Python.h"
    return shutil.which("g++") is not None and headers.exists() and " " not in sys.prefix


@pytest.mark.slow
@pytest.mark.skipif(not can_compile(), reason="needs g++, Python.h and a checkout without a space in its path")
def test_a_compiled_network_learns_what_a_plain_one_does(tmp_path):
    data = write_set(tmp_path / "data", tabular(), TABULAR)
    calm = replace(plan("tabular_mlp", epochs=2), dropout=0.0)
    for name, compiled in (("plain", False), ("compiled", True)):
        train_here(data, plan=calm, out=tmp_path / name, run=RunPlan(trace_steps=0, compile=compiled))
    one, other = (torch.load(tmp_path / name / "checkpoint.pt", weights_only=True) for name in ("plain", "compiled"))
    assert one.keys() == other.keys()
    for name, weight in one.items():
        torch.testing.assert_close(other[name], weight, atol=1e-4, rtol=1e-3, msg=name)


def test_a_network_that_cannot_be_compiled_here_is_one_sentence(tmp_path, monkeypatch):
    from torch._inductor import config

    monkeypatch.setattr(config.cpp, "cxx", (None, "/nowhere/g++"))
    monkeypatch.setattr(config, "force_disable_caches", True)
    data = write_set(tmp_path / "data", tabular(), TABULAR)
    with pytest.raises(TrainingError, match=r"training\.compile was asked for .* install a C\+\+ compiler"):
        train_here(data, plan=plan("tabular_mlp"), out=tmp_path / "out", run=RunPlan(trace_steps=0, compile=True))


def test_a_warm_start_takes_the_earlier_weights_over(tmp_path):
    data = write_set(tmp_path / "data", tabular(), TABULAR)
    train_here(data, plan=plan("tabular_mlp"), out=tmp_path / "a")
    result = train_here(data, plan=plan("tabular_mlp"), out=tmp_path / "b", warm=tmp_path / "a")
    assert math.isclose(result.warm_share, 1.0)


def test_a_loss_that_is_no_number_is_an_error_with_a_hint(tmp_path):
    data = write_set(tmp_path / "data", tabular(), TABULAR)
    wild = TrainingPlan(**{**asdict(plan("tabular_mlp", epochs=3)), "learning_rate": 1e30})
    with pytest.raises(TrainingError, match="learning_rate"):
        train_here(data, plan=wild, out=tmp_path / "out")
    assert not (tmp_path / "out" / "result.json").exists()


def test_heads_that_do_not_divide_the_width_are_named(tmp_path):
    data = write_set(tmp_path / "data", tabular(), TABULAR)
    odd = TrainingPlan(**{**asdict(plan("tabular_transformer")), "heads": 3})
    with pytest.raises(TrainingError, match="heads"):
        train_here(data, plan=odd, out=tmp_path / "out")


def test_the_plans_mirror_the_declarations():
    assert {f.name for f in fields(TrainingPlan)} == {*LearningSpec.model_fields, "kind"}
    ours = {"kind", "budget_seconds", "aed_per_core_hour"}
    assert {f.name for f in fields(CompressionPlan)} == {*CompressionSpec.model_fields, *ours} - {"compute", "budget"}
    assert CompressionPlan("binary").budget_seconds == CompressionSpec().budget.total_seconds()
    for mirror, spec in ((TrainingPlan, LearningSpec), (CompressionPlan, CompressionSpec)):
        for field in fields(mirror):
            if field.name not in {"architecture", "options", *ours}:
                assert field.default == spec.model_fields[field.name].default, field.name


def test_the_program_runs_where_no_library_of_the_platform_is(tmp_path):
    data = write_set(tmp_path / "data", tabular(), TABULAR)
    (tmp_path / "spec.json").write_text(json.dumps(asdict(plan("tabular_mlp", epochs=1))))
    absent = [
        "dagster",
        "dagster_pipes",
        "pydantic",
        "polars",
        "sklearn",
        "onnx",
        "onnxruntime",
        "mlflow",
        "feast",
        "duckdb",
        "deltalake",
    ]
    code = f"import sys; sys.modules.update(dict.fromkeys({absent})); from platform_assets.stages.training.__main__ import main; sys.exit(main())"
    arguments = ["--data", str(data), "--spec", str(tmp_path / "spec.json"), "--out", str(tmp_path / "out")]
    subprocess.run([sys.executable, "-c", code, *arguments], check=True)
    steps = [json.loads(line)["step"] for line in (tmp_path / "out" / "progress.jsonl").read_text().splitlines()]
    assert [step for step in steps if step != "train/checkpoint"] == ["train/begun", "train/feed", "train/epoch", "train/done"]


def test_a_wrong_plan_is_one_sentence(tmp_path):
    (tmp_path / "spec.json").write_text('{"architecture": "tabular_mlp", "kind": "binary", "widht": 3}')
    arguments = ["--data", str(tmp_path), "--spec", str(tmp_path / "spec.json"), "--out", str(tmp_path / "out")]
    done = subprocess.run(
        [sys.executable, "-m", "platform_assets.stages.training", *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "widht" in done.stderr
    assert "Traceback" not in done.stderr
