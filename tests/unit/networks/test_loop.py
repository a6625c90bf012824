"""The step loop: parts of a batch add up, a user's own module runs alike, what it logs is in the curve, and what it may not do is said."""

from __future__ import annotations

import gzip
import json

import lightning.pytorch as pl
import pytest
import torch
from torch import nn

from platform_assets.errors import DivergedError, PreemptedError, TrainingError
from platform_assets.networks.course import Course
from platform_assets.networks.feed.tensors import TensorFeed
from platform_assets.networks.launch import open_fabric
from platform_assets.networks.loop import Loop
from platform_assets.networks.plans import RunPlan, TrainingPlan
from platform_assets.networks.stopping import Stop

PLAN = TrainingPlan("own", "binary", epochs=3, batch_size=30, learning_rate=0.1, seed=5)
ROWS, TARGETS = torch.randn(100, 4, generator=torch.Generator().manual_seed(1)), (torch.arange(100) % 2).float()
UNTRACED = RunPlan(trace_steps=0)


class Own(pl.LightningModule):
    """A module as users write it for pl.Trainer."""

    def __init__(self, schedule=None):
        super().__init__()
        torch.manual_seed(2)
        self.layer = nn.Linear(4, 1)
        self.schedule = schedule

    def training_step(self, batch, batch_idx):
        rows, target = batch
        loss = nn.functional.binary_cross_entropy_with_logits(self.layer(rows).squeeze(1), target)
        self.log("squared", loss.detach() ** 2)
        return {"loss": loss}

    def configure_optimizers(self):
        optimiser = torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)
        if self.schedule is None:
            return optimiser
        scheduler = torch.optim.lr_scheduler.StepLR(optimiser, 1, gamma=0.5)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": scheduler, "interval": self.schedule}}


class Heard:
    def __init__(self):
        self.lines = []

    def step(self, name, **figures):
        self.lines.append((name, figures))


def train(module, *, run=UNTRACED, folder=None, plan=PLAN, stop=None, judge=lambda _: {"calibration_auroc": 0.5}):
    heard = Heard()
    feed = TensorFeed((ROWS, TARGETS), batch=plan.batch_size, seed=plan.seed)
    course = Course(plan=plan, run=run, fabric=open_fabric(plan, run), report=heard, name="train", folder=folder, stop=stop or Stop())
    loop = Loop(module, feed=feed, course=course, judge=judge)
    loop.run()
    return loop, heard


def test_parts_of_a_batch_add_up_to_the_batch():
    modules = Own(), Own()
    for module, count in zip(modules, (1, 4), strict=True):  # 30 rows in 4 parts: not all of one length
        train(module, run=RunPlan(trace_steps=0, micro_batches=count))
    torch.testing.assert_close(modules[0].layer.weight, modules[1].layer.weight, atol=1e-6, rtol=1e-5)


def test_more_parts_than_rows_are_as_many_as_there_are_rows():
    module, plain = Own(), Own()
    train(module, run=RunPlan(trace_steps=0, micro_batches=64))
    train(plain)
    torch.testing.assert_close(module.layer.weight, plain.layer.weight, atol=1e-6, rtol=1e-5)


def test_a_loop_by_hand_learns_the_same():
    module, plain = Own(), Own()
    loop, _ = train(module)
    optimiser, feed = plain.configure_optimizers(), TensorFeed((ROWS, TARGETS), batch=30, seed=5)
    for epoch in range(3):
        for rows, target in feed.batches(epoch):
            nn.functional.binary_cross_entropy_with_logits(plain.layer(rows).squeeze(1), target).backward()
            nn.utils.clip_grad_norm_(plain.parameters(), 1.0)
            optimiser.step()
            optimiser.zero_grad()
    assert torch.equal(module.layer.weight, plain.layer.weight)
    assert [entry["epoch"] for entry in loop.curve] == [1, 2, 3]


def test_what_a_module_logs_and_how_fast_it_went_is_told_each_epoch():
    loop, heard = train(Own())
    assert all(0 < entry["squared"] < entry["train_loss"] < 1 for entry in loop.curve)
    told = [figures for name, figures in heard.lines if name == "train/epoch"]
    assert len(told) == 3
    assert all(figures["samples_per_second"] > 0 and 0 <= figures["data_wait"] < 1 for figures in told)


@pytest.mark.parametrize(("schedule", "steps"), [("step", 9), ("epoch", 3)])
def test_a_schedule_moves_with_steps_or_with_epochs(schedule, steps):
    module = Own(schedule)
    loop, _ = train(module)
    assert loop._optimiser.param_groups[0]["lr"] == pytest.approx(0.1 * 0.5**steps)


def test_without_a_folder_a_broken_loss_ends_it_at_once():
    class Broken(Own):
        def training_step(self, batch, batch_idx):
            return super().training_step(batch, batch_idx)["loss"] * float("inf")

    with pytest.raises(DivergedError, match=r"training\.learning_rate"):
        train(Broken())


def test_asked_to_stop_it_goes_on_from_there(tmp_path):
    class Stopped(Own):
        def training_step(self, batch, batch_idx):
            if self.steps_left == 0:
                stop.ask("stopped by a test")
            self.steps_left -= 1
            return super().training_step(batch, batch_idx)

    stop, stopped, undisturbed = Stop(), Stopped("step"), Own("step")
    stopped.steps_left = 4
    with pytest.raises(PreemptedError, match="by a test"):
        train(stopped, folder=tmp_path, stop=stop)
    again = Own("step")
    loop, heard = train(again, folder=tmp_path)
    expected, _ = train(undisturbed)
    assert heard.lines[0] == ("train/resumed", {"at": 5.0, "lost_steps": 0.0})
    assert torch.equal(again.layer.weight, undisturbed.layer.weight)
    assert [entry["train_loss"] for entry in loop.curve] == [entry["train_loss"] for entry in expected.curve]


def test_a_trace_of_a_few_steps_is_kept(tmp_path):
    train(Own(), run=RunPlan(trace_steps=2), folder=tmp_path)
    with gzip.open(tmp_path / "trace.json.gz") as file:
        events = json.load(file)["traceEvents"]
    assert any("aten::linear" in event.get("name", "") for event in events)


def test_what_the_loop_does_not_do_is_said():
    class ByHand(Own):
        def __init__(self):
            super().__init__()
            self.automatic_optimization = False

    class Lossless(Own):
        def training_step(self, batch, batch_idx):
            return None

    class TwoOptimisers(Own):
        def configure_optimizers(self):
            return [super().configure_optimizers(), super().configure_optimizers()]

    for module, hint in ((ByHand(), "automatic_optimization"), (Lossless(), "return the loss"), (TwoOptimisers(), "one optimiser")):
        with pytest.raises(TrainingError, match=hint):
            train(module)
