"""What a LightningModule hands to a loop, in any of the forms that Lightning allows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from platform_assets.errors import TrainingError


def loss_of(returned: Any, module: nn.Module) -> Tensor:
    """Return the loss that training_step returned, by itself or in a mapping."""
    loss = returned.get("loss") if isinstance(returned, Mapping) else returned
    if not isinstance(loss, Tensor):
        raise TrainingError(
            f"{type(module).__name__}.training_step returned {type(returned).__name__}; return the loss, or a dict with 'loss'"
        )
    return loss


def read_optimisation(configured: Any) -> tuple[torch.optim.Optimizer, Any | None, bool]:
    """Read what configure_optimizers may return: the optimiser, its scheduler and whether that moves with each step (else each epoch)."""
    scheduler: Any = None
    if isinstance(configured, Mapping):
        configured, scheduler = configured["optimizer"], configured.get("lr_scheduler")
    elif isinstance(configured, tuple) and len(configured) == 2:  # noqa: PLR2004 -- a pair of lists, as Lightning has it
        optimisers, schedulers = configured
        configured, scheduler = optimisers, (schedulers[0] if schedulers else None)
    if isinstance(configured, (list, tuple)) and len(configured) == 1:
        configured = configured[0]
    if not isinstance(configured, torch.optim.Optimizer):
        raise TrainingError(
            f"configure_optimizers returned {type(configured).__name__}; the loop takes one optimiser, with or without a scheduler"
        )
    each_step = False
    if isinstance(scheduler, Mapping):
        each_step, scheduler = scheduler.get("interval") == "step", scheduler["scheduler"]
    return configured, scheduler, each_step
