"""Multi-layer perceptron over encoded numbers and embedded categories: the small student, or a teacher where speed leads."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from platform_assets.errors import TrainingError
from platform_assets.networks.dropout import DroppedRelu
from platform_assets.networks.encoding import NumberEncoding, SummedRows, embed_categories
from platform_assets.networks.tokens import PAD

if TYPE_CHECKING:
    from platform_assets.networks.plans import TrainingPlan
    from platform_assets.networks.preprocessing import Preprocessing


class TabularMlp(nn.Module):
    """Takes images too, as plain pixels, and texts as bags of word pieces: a perceptron is the student of every teacher."""

    def __init__(self, plan: TrainingPlan, preprocessing: Preprocessing, classes: int) -> None:
        super().__init__()
        self.numbers = NumberEncoding(preprocessing.numbers)
        self.image_rate = 1.0 / preprocessing.image_scale
        count, dates = len(self.numbers.plain), len(self.numbers.dates)
        self.has_categories = bool(preprocessing.categories)
        self.table = embed_categories(preprocessing, plan.width, kind=SummedRows) if self.has_categories else None
        # A category's row in the table is its share of the first layer: a sum of looked-up rows is one wide layer over one-hot inputs.
        self.first = nn.Linear(count * self.numbers.channels + dates * self.numbers.date_channels + preprocessing.image_size, plan.width)
        # So is a text: the mean of its pieces' rows. Row 0, padding, stays nought.
        text = preprocessing.tokeniser
        self.pieces = nn.Embedding(text.size, plan.width, padding_idx=PAD) if text is not None else None
        self.hidden = nn.ModuleList(nn.Linear(plan.width, plan.width) for _ in range(plan.depth - 1))
        self.head = nn.Linear(plan.width, classes)
        self.relu = DroppedRelu(plan.dropout)

    def forward(self, numeric: Tensor, ids: Tensor, image: Tensor, tokens: Tensor | None = None) -> Tensor:
        """Return logits [N, classes]."""
        parts = []
        if self.numbers.plain:
            parts.append(self.numbers(numeric).flatten(1))
        if self.numbers.dates:
            parts.append(self.numbers.cycles(numeric).flatten(1))
        if image.shape[1]:
            parts.append(image * self.image_rate)
        hidden = self.first(parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)) if parts else self.first.bias
        if self.table is not None:
            hidden = hidden + self.table(ids)
        if self.pieces is not None and tokens is not None:
            count = (tokens != PAD).sum(1, keepdim=True).clamp(min=1)
            hidden = hidden + self.pieces(tokens).sum(1) / count
        hidden = self.relu(hidden)
        for layer in self.hidden:
            hidden = self.relu(layer(hidden))
        logits: Tensor = self.head(hidden)
        return logits

    def prunable(self) -> list[nn.Linear]:
        """Layers whose output channels may be cut: the first one's are tied to the table of categories and stay."""
        return [layer for layer in self.hidden if isinstance(layer, nn.Linear)]


def build(plan: TrainingPlan, *, preprocessing: Preprocessing, classes: int) -> nn.Module:
    """Make the network; any inputs will do, but there must be one."""
    if not (preprocessing.numbers or preprocessing.categories or preprocessing.image_size or preprocessing.tokeniser):
        raise TrainingError("tabular_mlp was asked for without a single feature; list a view with columns in features.views")
    return TabularMlp(plan, preprocessing, classes)
