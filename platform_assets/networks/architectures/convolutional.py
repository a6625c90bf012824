"""Small residual convolutional network (He et al., 2016, in its pre-norm form) for square grey images of any side."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from platform_assets.errors import TrainingError
from platform_assets.networks.blocks import Blocks

if TYPE_CHECKING:
    from platform_assets.networks.plans import TrainingPlan
    from platform_assets.networks.preprocessing import Preprocessing


SMALLEST = 3  # pixels a side that are not halved any more


class ConvolutionalBlock(nn.Module):
    """Two 3 by 3 convolutions, twice the width between them, with their residual.

    The norm is over all channels of one image: statistics of a batch would make a row's answer depend on its neighbours.
    """

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(1, width)
        self.widen = nn.Conv2d(width, 2 * width, 3, padding=1)
        self.narrow = nn.Conv2d(2 * width, width, 3, padding=1)
        self.dropout = nn.Dropout2d(dropout)

    def forward(self, pixels: Tensor) -> Tensor:
        """Return [N, width, side, side]."""
        return pixels + self.dropout(self.narrow(torch.relu(self.widen(self.norm(pixels)))))


class Convolutional(nn.Module):
    """Blocks with the side halved between them while more than a few pixels are left, then the mean of each channel."""

    def __init__(self, plan: TrainingPlan, preprocessing: Preprocessing, classes: int) -> None:
        super().__init__()
        self.side = math.isqrt(preprocessing.image_size)
        self.image_rate = 1.0 / preprocessing.image_scale
        self.stem = nn.Conv2d(1, plan.width, 3, padding=1)
        self.blocks = Blocks(ConvolutionalBlock(plan.width, plan.dropout) for _ in range(plan.depth))
        self.norm = nn.LayerNorm(plan.width)
        self.head = nn.Linear(plan.width, classes)

    def forward(self, numeric: Tensor, ids: Tensor, image: Tensor) -> Tensor:
        """Return logits [N, classes]; only `image` is used."""
        del numeric, ids
        # -1 in the first place: traced with any number of rows, the exported graph takes any other.
        pixels = self.stem((image * self.image_rate).reshape(-1, 1, self.side, self.side))
        side = self.side
        for place in range(len(self.blocks)):
            if place and side > SMALLEST:
                pixels, side = nn.functional.avg_pool2d(pixels, 2, ceil_mode=True), -(-side // 2)
            pixels = self.blocks.run(place, pixels)
        logits: Tensor = self.head(self.norm(torch.relu(pixels).mean((2, 3))))
        return logits

    def prunable(self) -> list[nn.Module]:
        """Layers whose output channels may be cut without touching the width of what is added up."""
        return [block.widen for block in self.blocks if isinstance(block, ConvolutionalBlock)]


def build(plan: TrainingPlan, *, preprocessing: Preprocessing, classes: int) -> nn.Module:
    """Make the network; needs one square image and nothing else."""
    size = preprocessing.image_size
    others = preprocessing.numbers or preprocessing.categories or preprocessing.tokeniser
    if not size or math.isqrt(size) ** 2 != size or others:
        raise TrainingError(
            f"convolutional takes one square image and nothing else, found {size} pixels; choose tabular_mlp or another view"
        )
    return Convolutional(plan, preprocessing, classes)
