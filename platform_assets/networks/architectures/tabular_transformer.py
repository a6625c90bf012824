"""Feature-tokenising transformer (Gorishniy et al., "Revisiting Deep Learning Models for Tabular Data", 2021)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from platform_assets.errors import TrainingError
from platform_assets.networks.blocks import Encoder
from platform_assets.networks.encoding import NumberEncoding, embed_categories

if TYPE_CHECKING:
    from platform_assets.networks.plans import TrainingPlan
    from platform_assets.networks.preprocessing import Preprocessing


class FeatureTokens(nn.Module):
    """Turns numbers, dates and categories into one token each."""

    def __init__(self, plan: TrainingPlan, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.numbers = NumberEncoding(preprocessing.numbers)
        count, dates = len(self.numbers.plain), len(self.numbers.dates)
        self.number_weight = nn.Parameter(torch.randn(count, self.numbers.channels, plan.width) * self.numbers.channels**-0.5)
        self.number_bias = nn.Parameter(torch.randn(count, plan.width) * 0.1)
        self.date_weight = nn.Parameter(torch.randn(dates, self.numbers.date_channels, plan.width) * 0.5)
        self.table = embed_categories(preprocessing, plan.width)
        self.has_categories = bool(preprocessing.categories)

    def feature_tokens(self, numeric: Tensor, ids: Tensor) -> list[Tensor]:
        """Return up to three parts [N, features, width]."""
        tokens = []
        if self.numbers.plain:
            tokens.append(_project(self.numbers(numeric), self.number_weight) + self.number_bias)
        if self.numbers.dates:
            tokens.append(_project(self.numbers.cycles(numeric), self.date_weight))
        if self.has_categories:
            tokens.append(self.table(ids))
        return tokens


class TabularTransformer(FeatureTokens):
    """One token a feature."""

    def __init__(self, plan: TrainingPlan, preprocessing: Preprocessing, classes: int) -> None:
        super().__init__(plan, preprocessing)
        self.encoder = Encoder(width=plan.width, depth=plan.depth, heads=plan.heads, dropout=plan.dropout, classes=classes)

    def forward(self, numeric: Tensor, ids: Tensor, image: Tensor) -> Tensor:
        """Return logits [N, classes]; `image` is not used."""
        del image
        logits: Tensor = self.encoder(torch.cat(self.feature_tokens(numeric, ids), dim=1))
        return logits

    def prunable(self) -> list[nn.Linear]:
        """Layers whose output channels may be cut."""
        return self.encoder.prunable()


def _project(channels: Tensor, weight: Tensor) -> Tensor:
    """Each feature by its own matrix: [N, D, C] and [D, C, width] -> [N, D, width]."""
    return (channels.transpose(0, 1) @ weight).transpose(0, 1)


def build(plan: TrainingPlan, *, preprocessing: Preprocessing, classes: int) -> nn.Module:
    """Make the network; needs at least one number, date or category, and neither image nor text."""
    if preprocessing.image_size or preprocessing.tokeniser or not (preprocessing.numbers or preprocessing.categories):
        raise TrainingError(
            "tabular_transformer takes numbers, dates and categories, neither image nor text; choose another architecture or other views"
        )
    return TabularTransformer(plan, preprocessing, classes)
