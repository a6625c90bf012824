"""What people write without the platform: a plain PyTorch loop over preloaded tensors, and pl.Trainer with a map-style DataLoader.

Run as a program it is one contestant: `by_hand DATA PLAN` or `data_loader DATA PLAN`. Network, loss, optimiser, schedule, clipping and,
by hand, the moving average of the weights are the trainer's own, so that only what moves rows and turns the crank differs.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import lightning.pytorch as pl
import torch
from torch import Tensor, nn

from platform_assets.networks.architectures import build_network
from platform_assets.networks.fitting import Classifier, Lesson, hidden_shares, to_tensors
from platform_assets.networks.loop import MEMORY
from platform_assets.networks.plans import TrainingPlan
from platform_assets.networks.preprocessing import fit_preprocessing
from platform_assets.networks.rows import read_rows
from platform_assets.networks.shards import read_schema
from platform_assets.specs.record_json import read_record

if TYPE_CHECKING:
    from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig


def _prepare(data: Path, plan: TrainingPlan) -> tuple[Classifier, tuple[Tensor, ...]]:
    """Load everything into memory and make the module that the trainer would fit."""
    torch.set_num_threads(plan.threads or 1)
    torch.manual_seed(plan.seed)
    schema = read_schema(data)
    rows = read_rows(data, "train", schema=schema)
    preprocessing = fit_preprocessing(data, schema=schema)
    tensors = (*to_tensors(rows, preprocessing=preprocessing), torch.from_numpy(rows.labels))
    network = build_network(plan, preprocessing=preprocessing, classes=len(schema.classes))
    steps = len(rows) // plan.batch_size * plan.epochs
    return Classifier(network, plan=plan, steps=steps, lesson=Lesson(classes=len(schema.classes), hide=hidden_shares(schema))), tensors


def by_hand(data: Path, plan: TrainingPlan) -> list[float]:
    """Train by a loop of ten lines; return the samples a second of each epoch."""
    module, tensors = _prepare(data, plan)
    for weight in module.parameters():
        weight.requires_grad_(weight.numel() > 0)
    configured: OptimizerLRSchedulerConfig = module.configure_optimizers()
    optimiser, scheduler = configured["optimizer"], configured["lr_scheduler"]["scheduler"]  # type: ignore[index]
    weights: list[Tensor] = [weight for weight in module.parameters() if weight.requires_grad]
    average = [weight.detach().clone() for weight in weights]
    count, size, done, paces = len(tensors[0]), plan.batch_size, 0, []
    module.train()
    for _ in range(plan.epochs):
        began = time.perf_counter()
        order = torch.randperm(count)
        for start in range(0, count - size + 1, size):
            chosen = order[start : start + size]
            loss = module.training_step(tuple(tensor[chosen] for tensor in tensors), 0)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(weights, plan.clip_norm)
            optimiser.step()
            scheduler.step()
            done += 1
            torch._foreach_lerp_(average, weights, 1 - min(MEMORY, done / (done + 10)))
        paces.append(count // size * size / (time.perf_counter() - began))
    return paces


class _Pace(pl.Callback):
    def __init__(self, samples: int) -> None:
        self.samples, self.paces, self.began = samples, list[float](), 0.0

    def on_train_epoch_start(self, *_: object) -> None:
        self.began = time.perf_counter()

    def on_train_epoch_end(self, *_: object) -> None:
        self.paces.append(self.samples / (time.perf_counter() - self.began))


def data_loader(data: Path, plan: TrainingPlan) -> list[float]:
    """Train the same module as the tutorials do; return the samples a second of each epoch."""
    from torch.utils.data import DataLoader, TensorDataset

    module, tensors = _prepare(data, plan)
    loader = DataLoader(TensorDataset(*tensors), batch_size=plan.batch_size, shuffle=True, drop_last=True)
    pace = _Pace(len(loader) * plan.batch_size)
    trainer = pl.Trainer(
        max_epochs=plan.epochs, accelerator="cpu", devices=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=[pace], gradient_clip_val=plan.clip_norm,
    )  # fmt: skip
    trainer.fit(module, loader)
    return pace.paces


def main(arguments: list[str]) -> None:
    """Run one contestant and print its pace, the first epoch left out where there are more."""
    name, data, spec = arguments
    plan = read_record(TrainingPlan, Path(spec).read_bytes())
    paces = {"by_hand": by_hand, "data_loader": data_loader}[name](Path(data), plan)
    sys.stdout.write(json.dumps({"samples_per_second": median(paces[1:] or paces)}) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
