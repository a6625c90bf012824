"""What is dropped while training, with masks that a CPU draws cheaply. In evaluation mode, and so in an export, nothing is."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

_LEVELS = 256  # of the share that is dropped: one random byte a channel


class _DroppedRelu(torch.autograd.Function):
    """What is above nought and kept, scaled: where the outcome is nought, for either reason, so is the gradient, and no mask is kept."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, mask: Tensor, scale: float) -> Tensor:
        """Return the outcome, of the shape given."""
        outcome = hidden.relu().mul_(mask)
        ctx.save_for_backward(outcome)
        ctx.scale = scale
        return outcome

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        """Return the gradient of `hidden`."""
        (outcome,) = ctx.saved_tensors
        return torch.ops.aten.threshold_backward(gradient, outcome, 0).mul_(ctx.scale), None, None


class DroppedRelu(nn.Module):
    """relu, then channels dropped, each by itself, as nn.Dropout does; the share is rounded to a 256th.

    On a CPU nn.Dropout draws a number a channel, one after the other: 4.5 of the 19.5 ms of a step of three layers of 256. Here one draw
    of eight bytes masks eight channels, and the same takes 0.9 ms; two products and a comparison less on the way back save 1 ms more.
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        self.dropped = 0 if share == 0 else min(_LEVELS - 1, max(1, round(share * _LEVELS)))

    def forward(self, hidden: Tensor) -> Tensor:
        """Return the shape given; what is kept is scaled so that the expectation stays."""
        if not self.training or not self.dropped:
            return hidden.relu()
        if hidden.is_cuda:  # one fused kernel
            return nn.functional.dropout(hidden.relu(), self.dropped / _LEVELS)
        draws = torch.empty(-(-hidden.numel() // 8), dtype=torch.int64, device=hidden.device).random_(-(2**63), None)
        kept = draws.view(torch.uint8)[: hidden.numel()].view(hidden.shape) >= self.dropped
        scale = _LEVELS / (_LEVELS - self.dropped)
        dropped: Tensor = _DroppedRelu.apply(hidden, kept.to(hidden.dtype).mul_(scale), scale)
        return dropped


class TokenDropout(nn.Module):
    """Drops whole tokens of what a layer adds: on a CPU the random numbers of a mask for each channel took a sixth of a training step."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.keep = 1 - share

    def forward(self, added: Tensor) -> Tensor:
        """Return [N, T, width], unchanged in evaluation mode."""
        if not self.training or self.keep == 1:
            return added
        return added * added.new_empty(*added.shape[:2], 1).bernoulli_(self.keep).div_(self.keep)
