"""Quantisation-aware fine-tuning: weights learn on the grid they will be stored on, `qat-4` for `pack-4` (Jacob et al., 2018).

The rounding is in the forward pass alone; its gradient passes straight through (Bengio et al., 2013).
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from platform_assets.stages.compression.methods import CompressionRefusedError

if TYPE_CHECKING:
    from platform_assets.stages.compression.teaching import Teaching

RATE = 1e-3
LEAST = 48  # weights of a matrix that is rounded


class OnGrid(nn.Module):
    """Round to whole multiples of each output channel's largest weight over the greatest code."""

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.most = 2 ** (bits - 1) - 1

    def forward(self, weight: Tensor) -> Tensor:
        """Return the weight on its grid; the gradient is the weight's own."""
        step = weight.detach().abs().flatten(1).amax(1).clamp(min=1e-12) / self.most
        step = step.reshape(-1, *[1] * (weight.ndim - 1))
        rounded = (weight.detach() / step).round() * step
        return weight + (rounded - weight.detach())


def start(model: nn.Module, option: str, teaching: Teaching) -> nn.Module:
    """Put the weights of a copy on the grid while it learns; `settle` makes that their value."""
    del teaching
    if not isinstance(model, nn.Module):
        raise CompressionRefusedError("trees have no weights to tune")
    network = copy.deepcopy(model)
    layers = [part for part in network.modules() if isinstance(part, (nn.Linear, nn.Conv2d)) and part.weight.numel() >= LEAST]
    if not layers:
        raise CompressionRefusedError(f"{type(network).__name__} has no matrix or convolution to round")
    for layer in layers:
        parametrize.register_parametrization(layer, "weight", OnGrid(int(option)))
    return network


def settle(model: nn.Module, *, plain: nn.Module) -> nn.Module:
    """Return a copy of the network as it was before, with the weights that were learnt, on their grid."""
    # Not `remove_parametrizations`: it takes the attribute off the class, which copies of the network share.
    settled = copy.deepcopy(plain)
    learnt = dict(model.named_modules())
    with torch.no_grad():
        for name, part in settled.named_modules():
            for field in ("weight", "bias"):
                now = getattr(part, field, None)
                if isinstance(now, nn.Parameter):
                    now.copy_(getattr(learnt[name], field))
    return settled.eval()
