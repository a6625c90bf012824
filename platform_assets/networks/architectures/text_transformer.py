"""Transformer encoder over word pieces; numbers, dates and categories of the same row are further tokens (Vaswani et al., 2017)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from platform_assets.errors import TrainingError
from platform_assets.networks.architectures.tabular_transformer import FeatureTokens
from platform_assets.networks.blocks import Encoder
from platform_assets.networks.tokens import PAD

if TYPE_CHECKING:
    from platform_assets.networks.plans import TrainingPlan
    from platform_assets.networks.preprocessing import Preprocessing

SPREAD = 4  # of a feed-forward layer, as text encoders have it


class TextTransformer(FeatureTokens):
    """A token a word piece, at its place; padding is not looked at, so that a row's answer does not depend on its batch."""

    row_by_row = False  # torch.func takes one row at a time, and cannot ask a value of it

    def __init__(self, plan: TrainingPlan, preprocessing: Preprocessing, *, size: int, length: int, classes: int) -> None:
        super().__init__(plan, preprocessing)
        self.pieces = nn.Embedding(size, plan.width)
        nn.init.normal_(self.pieces.weight, std=0.1)
        self.position = nn.Parameter(torch.randn(1, length, plan.width) * 0.1)
        self.encoder = Encoder(
            width=plan.width, depth=plan.depth, heads=plan.heads, dropout=plan.dropout, classes=classes, spread=SPREAD
        )  # fmt: skip

    def forward(self, numeric: Tensor, ids: Tensor, image: Tensor, tokens: Tensor) -> Tensor:
        """Return logits [N, classes]; `tokens` is int [N, length], `image` is not used."""
        del image
        features = self.feature_tokens(numeric, ids)
        seen = tokens != PAD
        read = torch.cat([self.pieces(tokens) + self.position, *features], dim=1)
        if not (self.row_by_row or torch.jit.is_tracing()) and _is_whole(seen):
            return self.encoder(read)  # without a mask the kernels are faster
        logits: Tensor = self.encoder(read, nn.functional.pad(seen, (0, read.shape[1] - tokens.shape[1]), value=True))
        return logits

    def prunable(self) -> list[nn.Linear]:
        """Layers whose output channels may be cut."""
        return self.encoder.prunable()


@torch.compiler.disable  # it asks for a value in the midst of the graph: compiled parts end before it and begin after it
def _is_whole(seen: Tensor) -> bool:
    return bool(seen.all())


def build(plan: TrainingPlan, *, preprocessing: Preprocessing, classes: int) -> nn.Module:
    """Make the network; needs a text, and no image."""
    text = preprocessing.tokeniser
    if text is None or preprocessing.image_size:
        raise TrainingError("text_transformer takes a text, numbers, dates and categories and no image; choose a view with a text column")
    return TextTransformer(plan, preprocessing, size=text.size, length=text.width, classes=classes)
