"""A network of the user's own: found by its path, told its inputs, trained and exported; each thing that is missing is one sentence."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnxruntime as ort
import pytest

from platform_assets.errors import TrainingError
from platform_assets.networks.architectures import build_network
from platform_assets.networks.checkpoint import load_trained
from platform_assets.networks.export import export_onnx
from platform_assets.networks.fitting import predict, to_tensors
from platform_assets.networks.preprocessing import fit_preprocessing
from platform_assets.networks.rows import read_rows
from platform_assets.stages.compression.measure import feeds
from tests.unit.networks.tiny import REVIEWS, plan, reviews, write_set
from tests.unit.stages.training.starts import train_here

OWN = """
import lightning.pytorch as pl
import torch
from torch import nn

from platform_assets.networks.encoding import NumberEncoding


class Bag(pl.LightningModule):
    def __init__(self, *, inputs, width=8, rate=0.01):
        super().__init__()
        self.rate = rate
        self.numbers = NumberEncoding(inputs.preprocessing.numbers)
        self.first = nn.Linear(inputs.numbers * self.numbers.channels, width)
        self.categories = nn.Embedding(sum(inputs.categories), width)
        self.pieces = nn.Embedding(inputs.vocabulary, width, padding_idx=0)
        self.head = nn.Linear(width, inputs.classes)

    def forward(self, numeric, ids, image, tokens):
        hidden = self.first(self.numbers(numeric).flatten(1)) + self.categories(ids).sum(1) + self.pieces(tokens).sum(1)
        return self.head(torch.relu(hidden))

    def training_step(self, batch, _):
        *inputs, target = batch
        loss = nn.functional.cross_entropy(self(*inputs), target)
        self.log("own_loss", loss)
        return loss

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=self.rate)


class NoStep(pl.LightningModule):
    def __init__(self, *, inputs): super().__init__()
    def forward(self, numeric, ids, image, tokens): return numeric
    def configure_optimizers(self): return None


class WrongShape(Bag):
    def forward(self, numeric, ids, image, tokens): return numeric


class Deaf(Bag):
    def forward(self, numeric, ids, image): return numeric


class Blind(Bag):
    def forward(self, numeric, ids, image, tokens): return self.head(self.pieces(tokens).sum(1))


class Strange(Bag):
    def forward(self, *inputs): logits = super().forward(*inputs); return logits + torch.linalg.eigvalsh(logits.T @ logits)


class Plain: pass
"""


@pytest.fixture(autouse=True)
def _own(tmp_path, monkeypatch):
    (tmp_path / "own_networks.py").write_text(OWN)
    (tmp_path / "own_broken.py").write_text("1 / 0 if False else undefined_name\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(__import__("sys").modules, "own_networks", raising=False)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_set(tmp_path_factory.mktemp("reviews"), reviews(), REVIEWS)


def own(name, **options):
    return replace(plan("custom", epochs=8), module=name, options=options)


def build(data, told):
    return build_network(told, preprocessing=fit_preprocessing(data, schema=REVIEWS), classes=2)


def test_it_is_trained_kept_and_exported_like_any_other(data, tmp_path):
    result = train_here(data, plan=own("own_networks:Bag", width=12, rate=0.02), out=tmp_path / "out")
    assert result.holdout["auroc"] > 0.9
    assert '"own_loss"' in (tmp_path / "out" / "curve.json").read_text()
    trained = load_trained(tmp_path / "out")
    assert trained.network.first.out_features == 12
    export_onnx(trained, tmp_path / "model.onnx")
    rows = read_rows(data, "holdout", schema=REVIEWS)
    served = ort.InferenceSession(str(tmp_path / "model.onnx")).run(None, feeds(rows))[0]
    np.testing.assert_allclose(served, predict(trained.network, to_tensors(rows, preprocessing=trained.preprocessing)), atol=1e-5)


@pytest.mark.parametrize(("told", "sentence"), [
    (own("no_such_package:Bag"), "no_such_package cannot be imported .*PYTHONPATH"),
    (own("own_broken:Bag"), "own_broken fails when it is imported .*undefined_name"),
    (own("own_networks:Bug"), "own_networks has no 'Bug'"),
    (own("own_networks:Plain"), "not a LightningModule"),
    (own("own_networks:NoStep"), "lacks training_step; a network of your own offers forward, training_step, configure_optimizers"),
    (own("own_networks:Bag", depth=3), "could not be made with inputs and depth .*training.options"),
    (own("own_networks:WrongShape"), r"gave \(2, 1\) for two rows; right are logits of shape \(2, 2\)"),
    (own("own_networks:Deaf"), r"forward\(numeric, ids, image, tokens\) failed on two rows"),
    (replace(plan("custom"), module=None), "needs training.module"),
])  # fmt: skip
def test_what_is_wrong_with_it_is_one_sentence(data, told, sentence):
    with pytest.raises(TrainingError, match=sentence) as caught:
        build(data, told)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("name", "sentence"), [
    ("Blind", "reads (text|tokens) of its inputs|cannot be exported"), ("Strange", "Strange cannot be exported to ONNX .*opset"),
])  # fmt: skip
def test_what_cannot_become_a_graph_is_refused_in_one_sentence(data, tmp_path, name, sentence):
    told = own(f"own_networks:{name}")
    network = build(data, told)
    trained = type(
        "Trained", (), {"network": network, "plan": told, "preprocessing": fit_preprocessing(data, schema=REVIEWS), "schema": REVIEWS}
    )()
    with pytest.raises(TrainingError, match=sentence):
        export_onnx(trained, tmp_path / "model.onnx")
    assert not (tmp_path / "model.onnx").exists()
