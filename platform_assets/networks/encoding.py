"""First layers of a tabular network: raw numbers and category indices in, channels out. Fitted values are buffers, never trained.

Numbers become piecewise-linear quantile encodings (Gorishniy et al., "On Embeddings for Numerical Features in Tabular Deep
Learning", 2022) with the scaled value and a missing flag; dates add sine and cosine of the year and of the week.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from platform_assets.networks.preprocessing import NumberColumn, Preprocessing

CLIP = 4.0  # scaled values beyond four deviations say "far out", not how far
DAYS_A_YEAR, DAYS_A_WEEK = 365.2425, 7.0


class NumberEncoding(nn.Module):
    """Numbers float32 [N, D], NaN is missing -> channels [N, D, `channels`]."""

    lows: Tensor
    slopes: Tensor
    median: Tensor
    mean: Tensor
    rates: Tensor
    turns: Tensor

    def __init__(self, columns: tuple[NumberColumn, ...]) -> None:
        super().__init__()
        bins = max((len(column.edges) - 1 for column in columns), default=1)
        lows, slopes = torch.zeros(len(columns), bins), torch.zeros(len(columns), bins)
        for row, column in enumerate(columns):
            edges = torch.tensor(column.edges, dtype=torch.float64)
            lows[row, : len(edges) - 1] = edges[:-1].float()
            slopes[row, : len(edges) - 1] = (1.0 / (edges[1:] - edges[:-1])).float()
        self.dates = [row for row, column in enumerate(columns) if column.is_date]
        turns = torch.tensor([2 * math.pi / DAYS_A_YEAR, 2 * math.pi / DAYS_A_WEEK])
        fitted = {
            "lows": lows,
            "slopes": slopes,
            "median": torch.tensor([column.median for column in columns]),
            "mean": torch.tensor([column.mean for column in columns]),
            "rates": torch.tensor([1.0 / column.scale for column in columns]),
            "turns": turns,
        }
        for name, value in fitted.items():
            self.register_buffer(name, value, persistent=False)  # preprocessing.json is their one home
        self.channels = bins + 2
        self.date_channels = 4

    def forward(self, numbers: Tensor) -> Tensor:
        """Encode numbers; the missing flag is the last channel."""
        missing = torch.isnan(numbers)
        known = torch.where(missing, self.median, numbers)
        scaled = ((known - self.mean) * self.rates).clamp(-CLIP, CLIP)
        steps = ((known.unsqueeze(-1) - self.lows) * self.slopes).clamp(0.0, 1.0)
        return torch.cat([steps, scaled.unsqueeze(-1), missing.to(numbers.dtype).unsqueeze(-1)], dim=-1)

    def cycles(self, numbers: Tensor) -> Tensor:
        """Sine and cosine of year and week of the date columns: [N, dates, 4]; a missing date is treated as the median date."""
        days = numbers[:, self.dates]
        angles = torch.where(torch.isnan(days), self.median[self.dates], days).unsqueeze(-1) * self.turns
        return torch.cat([angles.sin(), angles.cos()], dim=-1)


def embed_categories(preprocessing: Preprocessing, width: int) -> nn.Embedding:
    """Make one table for all category columns; rows follow `Preprocessing.offsets`."""
    table = nn.Embedding(max(1, sum(column.size for column in preprocessing.categories)), width)
    nn.init.normal_(table.weight, std=0.1)
    return table
