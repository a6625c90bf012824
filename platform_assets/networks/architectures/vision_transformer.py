"""Small vision transformer (Dosovitskiy et al., 2021) for square grey images of any side, cut into a 4 by 4 grid."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from platform_assets.errors import TrainingError
from platform_assets.networks.blocks import Encoder

if TYPE_CHECKING:
    from platform_assets.networks.plans import TrainingPlan
    from platform_assets.networks.preprocessing import Preprocessing

GRID = 4


class VisionTransformer(nn.Module):
    """Sixteen windows, side/4 pixels apart and twice as wide, so that they overlap; zeros beyond the border.

    Windows side by side cut the strokes of the 8 by 8 digits: 13 of 234 were read wrong instead of 7.
    """

    def __init__(self, plan: TrainingPlan, preprocessing: Preprocessing, classes: int) -> None:
        super().__init__()
        self.side = math.isqrt(preprocessing.image_size)
        self.patch = -(-self.side // GRID)
        self.image_rate = 1.0 / preprocessing.image_scale
        self.project = nn.Conv2d(1, plan.width, 2 * self.patch, stride=self.patch)
        self.position = nn.Parameter(torch.randn(1, GRID**2, plan.width) * 0.1)
        self.encoder = Encoder(width=plan.width, depth=plan.depth, heads=plan.heads, dropout=plan.dropout, classes=classes)

    def forward(self, numeric: Tensor, ids: Tensor, image: Tensor) -> Tensor:
        """Return logits [N, classes]; only `image` is used."""
        del numeric, ids
        before = self.patch // 2
        after = (GRID + 1) * self.patch - self.side - before
        # -1 in the first place: traced with any number of rows, the exported graph takes any other.
        pixels = nn.functional.pad((image * self.image_rate).reshape(-1, 1, self.side, self.side), (before, after, before, after))
        logits: Tensor = self.encoder(self.project(pixels).flatten(2).transpose(1, 2) + self.position)
        return logits

    def prunable(self) -> list[nn.Linear]:
        """Layers whose output channels may be cut."""
        return self.encoder.prunable()


def build(plan: TrainingPlan, *, preprocessing: Preprocessing, classes: int) -> nn.Module:
    """Make the network; needs one square image and nothing else."""
    size = preprocessing.image_size
    if not size or math.isqrt(size) ** 2 != size or preprocessing.numbers or preprocessing.categories or preprocessing.tokeniser:
        raise TrainingError(
            f"vision_transformer takes one square image and nothing else, found {size} pixels; choose tabular_mlp or another view"
        )
    return VisionTransformer(plan, preprocessing, classes)
