"""A private step: every row's gradient is its own, clipped; what one row can do is bounded; rows come by coins."""

from __future__ import annotations

from dataclasses import replace

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from opacus.optimizers import DPOptimizer
from torch import nn

from platform_assets.errors import TrainingError
from platform_assets.networks.architectures import build_network
from platform_assets.networks.course import Course
from platform_assets.networks.feed.cache import ShardCache
from platform_assets.networks.feed.encoded import encode_splits, fit_once
from platform_assets.networks.fitting import Classifier, Lesson
from platform_assets.networks.launch import open_fabric
from platform_assets.networks.plans import PrivacyPlan, RunPlan
from platform_assets.networks.private.gradients import RowGradients
from platform_assets.networks.private.sampling import PoissonFeed
from platform_assets.networks.private.steps import begin_private
from tests.unit.networks.tiny import CASES, Silent, plan, write_set

RUN = RunPlan(trace_steps=0)


def private(architecture: str, **changes):
    return replace(plan(architecture, kind=CASES[architecture][2]), dropout=0.0, privacy=PrivacyPlan(8.0, 1e-4), **changes)


@pytest.fixture(scope="module", params=CASES)
def case(request, tmp_path_factory):
    """A network, its first rows and the split they come from."""
    make, schema, _ = CASES[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    data, chosen = write_set(folder / "data", make(), schema), private(request.param)
    cache = ShardCache(folder / "cache", limit_bytes=1 << 30)
    fitted = fit_once(data, schema=schema, cache=cache, vocabulary=chosen.vocabulary, max_tokens=chosen.max_tokens)
    split = encode_splits(data, schema=schema, preprocessing=fitted, cache=cache, rank=0, world=1)["train"]
    torch.manual_seed(1)
    network = build_network(chosen, preprocessing=fitted, classes=len(schema.classes))
    return chosen, network, split


def gradients_by_hand(network: nn.Module, batch) -> list[dict[str, torch.Tensor]]:
    found = []
    *inputs, target = batch
    for row in range(len(target)):
        network.zero_grad()
        said = network(*(part[row : row + 1] for part in inputs))
        nn.functional.cross_entropy(said, target[row : row + 1]).backward()
        found.append(
            {name: torch.zeros_like(w) if w.grad is None else w.grad.clone() for name, w in network.named_parameters() if w.numel()}
        )
    network.zero_grad()
    return found


def norm(gradients: dict[str, torch.Tensor]) -> float:
    return float(torch.cat([part.flatten() for part in gradients.values()]).norm())


def test_each_rows_gradient_is_the_one_that_it_gives_alone_and_clipped_the_sum_of_all(case):
    _, network, split = case
    batch = split.take(np.arange(9))
    alone = gradients_by_hand(network, batch)
    for weight in network.parameters():
        weight.requires_grad_(weight.numel() > 0)
    RowGradients(network).lay_down(batch[:-1], batch[-1])
    for name, weight in network.named_parameters():
        if weight.requires_grad:
            torch.testing.assert_close(weight.grad_sample, torch.stack([row[name] for row in alone]), atol=1e-5, rtol=1e-4)
    most = sorted(map(norm, alone))[4]  # half of the rows are clipped
    optimiser = DPOptimizer(torch.optim.SGD(network.parameters(), lr=0.0), noise_multiplier=0.0, max_grad_norm=most, expected_batch_size=1)
    optimiser.clip_and_accumulate()
    for name, weight in network.named_parameters():
        if weight.requires_grad:
            clipped = sum(row[name] * min(1.0, most / norm(row)) for row in alone)
            torch.testing.assert_close(weight.summed_grad, clipped, atol=1e-5, rtol=1e-3)
    optimiser.zero_grad()


def begun(module, chosen, folder, *, rows=144, run=RUN, fabric=None):
    course = Course(plan=chosen, run=run, fabric=fabric or open_fabric(chosen, run), report=Silent(), name="t", folder=folder)
    return begin_private(module, torch.optim.SGD(module.parameters(), lr=1.0), course=course, rows=rows, steps=9)


def test_one_row_more_moves_the_sum_by_no_more_than_the_declared_norm(case, tmp_path):
    chosen, network, split = case
    module, taken = Classifier(network, plan=chosen, steps=1, lesson=Lesson(classes=3)), []
    privacy = replace(chosen.privacy, max_grad_norm=0.01)
    for number, rows in enumerate((np.arange(12), np.arange(11))):
        steps = begun(module, replace(chosen, privacy=privacy), tmp_path / str(number), run=replace(RUN, micro_batches=3))
        steps._optimiser.noise_multiplier = 0.0
        before = [weight.detach().clone() for weight in network.parameters()]
        assert steps.learn(split.take(rows))
        taken.append([now.detach() - then for now, then in zip(network.parameters(), before, strict=True)])
        for weight, then in zip(network.parameters(), before, strict=True):
            weight.data.copy_(then)
    moved = torch.cat([(one - other).flatten() for one, other in zip(*taken, strict=True)]) * chosen.batch_size
    assert 0 < float(moved.norm()) <= 0.01 * 1.001


def test_a_batch_of_no_rows_is_noise_alone_of_the_declared_size(case, tmp_path):
    chosen, network, split = case
    steps = begun(Classifier(network, plan=chosen, steps=1, lesson=Lesson(classes=3)), chosen, tmp_path)
    before = [weight.detach().clone() for weight in network.parameters()]
    assert steps.learn(PoissonFeed(split, batch=16).take(np.arange(0)))
    noise = torch.cat([(now.detach() - then).flatten() for now, then in zip(network.parameters(), before, strict=True)]) * chosen.batch_size
    assert float(noise.std()) == pytest.approx(steps._budget.noise_multiplier * chosen.privacy.max_grad_norm, rel=0.1)
    for weight, then in zip(network.parameters(), before, strict=True):
        weight.data.copy_(then)


class Rows:
    rows = 400

    def take(self, rows):
        return (rows,)


def test_rows_come_by_coins_of_their_own_and_never_twice_the_same():
    feed, again = PoissonFeed(Rows(), batch=40), PoissonFeed(Rows(), batch=40)
    assert (feed.steps, feed.rate) == (10, 0.1)
    drawn = [rows for epoch in range(100) for (rows,) in feed.batches(epoch)]
    assert len(drawn) == 1000
    assert len(list(feed.batches(0, start=7))) == 3
    sizes = np.array([len(rows) for rows in drawn])
    assert sizes.mean() == pytest.approx(40, abs=1.5)  # five deviations of the mean
    assert sizes.var() == pytest.approx(400 * 0.1 * 0.9, rel=0.25)
    counts = np.bincount(np.concatenate(drawn), minlength=400)
    assert abs(counts - 100).max() < 60  # six deviations
    both = sum(0 in rows and 1 in rows for rows in drawn)
    assert both < 30  # 10 in a thousand, since neither's coin knows the other's
    assert all((np.diff(rows) > 0).all() for rows in drawn)
    assert not np.array_equal(drawn[0], next(iter(again.batches(0)))[0])


class Own(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 2)


class Mixed(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(2)
        self.head = nn.Linear(2, 2)


class Two:
    world_size = 2


@pytest.mark.parametrize(
    ("changes", "told", "message"),
    [
        ({"dropout": 0.1}, {}, "without training.dropout"), ({"precision": "bf16-mixed"}, {}, "bf16-mixed"),
        ({}, {"run": replace(RUN, compile=True)}, "without training.compile"), ({}, {"run": replace(RUN, gradient_checkpointing=True)}, "checkpointing"),
        ({}, {"rows": 10_000}, r"delta is 0\.0001 for 10000 training rows"), ({}, {"fabric": Two()}, "kept by one process, and 2"),
        ({}, {"folder": None}, "nobody counts"), ({}, {"module": Own()}, "Own is a LightningModule of its own"),
        ({}, {"network": Mixed()}, "tabular_mlp cannot be made private: BatchNorm cannot support training with differential privacy"),
    ],
)  # fmt: skip
def test_what_cannot_be_made_private_is_refused_in_a_sentence(tmp_path, changes, told, message):
    chosen = replace(private("tabular_mlp"), **changes)
    told = dict(told)
    network = told.pop("network", nn.Linear(2, 2))
    module = told.pop("module", Classifier(network, plan=chosen, steps=1, lesson=Lesson(classes=2)))
    folder = told.pop("folder", tmp_path)
    with pytest.raises(TrainingError, match=message) as refused:
        begun(module, chosen, folder, **told)
    assert "\n" not in str(refused.value)


def test_a_checkpoint_whose_steps_nobody_counted_is_not_gone_on_from(tmp_path):
    chosen = private("tabular_mlp")
    steps = begun(Classifier(nn.Linear(2, 2), plan=chosen, steps=1, lesson=Lesson(classes=2)), chosen, tmp_path)
    steps.went_on_from(0)
    with pytest.raises(TrainingError, match="a checkpoint of step 5 is there, but only 0 private steps are recorded"):
        steps.went_on_from(5)
