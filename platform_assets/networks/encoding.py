"""First layers of a tabular network: raw numbers and category indices in, channels out. Fitted values are buffers, never trained.

Numbers become piecewise-linear quantile encodings (Gorishniy et al., "On Embeddings for Numerical Features in Tabular Deep
Learning", 2022) with the scaled value and a missing flag. Nothing goes beyond the training rows' own range, as in a tree. Dates are
sine and cosine of the year and of the week alone: every row to come lies after every training row, so an absolute date teaches only noise.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from platform_assets.networks.preprocessing import NumberColumn, Preprocessing

CLIP = 4.0  # numbers beyond four deviations say "far out", not how far
DAYS_A_YEAR, DAYS_A_WEEK = 365.2425, 7.0


class NumberEncoding(nn.Module):
    """Numbers float32 [N, D], NaN is missing -> channels [N, D - dates, `channels`] of the plain ones, and cycles of the dates."""

    row_by_row = False  # torch.func takes one row at a time, and has no rule for clamp_

    starts: Tensor
    slopes: Tensor
    lowest: Tensor
    highest: Tensor
    median: Tensor
    mean: Tensor
    rates: Tensor
    turns: Tensor

    def __init__(self, columns: tuple[NumberColumn, ...]) -> None:
        super().__init__()
        self.dates = [row for row, column in enumerate(columns) if column.is_date]
        self.plain = [row for row, column in enumerate(columns) if not column.is_date]
        plain = [columns[row] for row in self.plain]
        bins = max((len(column.edges) - 1 for column in plain), default=1)
        starts, slopes = torch.zeros(len(plain), bins), torch.zeros(len(plain), bins)
        for row, column in enumerate(plain):
            edges = torch.tensor(column.edges, dtype=torch.float64)
            starts[row, : len(edges) - 1] = edges[:-1].float()
            slopes[row, : len(edges) - 1] = (1.0 / (edges[1:] - edges[:-1])).float()
        turns = torch.tensor([2 * math.pi / DAYS_A_YEAR, 2 * math.pi / DAYS_A_WEEK])
        fitted = {
            "starts": starts,
            "slopes": slopes,
            "lowest": torch.tensor([max(column.edges[0], column.mean - CLIP * column.scale) for column in plain]),
            "highest": torch.tensor([min(column.edges[-1], column.mean + CLIP * column.scale) for column in plain]),
            "median": torch.tensor([column.median for column in columns]),
            "mean": torch.tensor([column.mean for column in plain]),
            "rates": torch.tensor([1.0 / column.scale for column in plain]),
            "turns": turns,
        }
        for name, value in fitted.items():
            self.register_buffer(name, value, persistent=False)  # preprocessing.json is their one home
        self.channels = bins + 2
        self.date_channels = 5

    def forward(self, numbers: Tensor) -> Tensor:
        """Encode the plain numbers; the missing flag is the last channel."""
        plain = numbers[:, self.plain] if self.dates else numbers
        missing = torch.isnan(plain)
        known = torch.where(missing, self.median[self.plain], plain)
        scaled = (known.minimum(self.highest).maximum(self.lowest) - self.mean) * self.rates
        steps = (known.unsqueeze(-1) - self.starts).mul_(self.slopes)
        steps = steps.clamp(0.0, 1.0) if self.row_by_row else steps.clamp_(0.0, 1.0)
        return torch.cat([steps, scaled.unsqueeze(-1), missing.to(numbers.dtype).unsqueeze(-1)], dim=-1)

    def cycles(self, numbers: Tensor) -> Tensor:
        """Sine and cosine of year and week of the date columns, and a missing flag: [N, dates, 5]; a missing date is the median."""
        days = numbers[:, self.dates]
        missing = torch.isnan(days)
        angles = torch.where(missing, self.median[self.dates], days).unsqueeze(-1) * self.turns
        return torch.cat([angles.sin(), angles.cos(), missing.to(numbers.dtype).unsqueeze(-1)], dim=-1)


class SummedRows(nn.Embedding):
    """Indices [N, C] -> the sum of their rows [N, width]: rows that are added up need not be written out, [N, C, width], first."""

    row_by_row = False  # torch.func takes one row at a time, and has no rule for this sum

    def forward(self, ids: Tensor) -> Tensor:
        """Sum; a graph in the making gets the two plain operators that ONNX has."""
        if self.row_by_row or torch.jit.is_tracing():
            return super().forward(ids).sum(1)
        return nn.functional.embedding_bag(ids, self.weight, mode="sum")


def embed_categories(preprocessing: Preprocessing, width: int, *, kind: type[nn.Embedding] = nn.Embedding) -> nn.Embedding:
    """Make one table for all category columns; rows follow `Preprocessing.offsets`."""
    table = kind(max(1, sum(column.size for column in preprocessing.categories)), width)
    nn.init.normal_(table.weight, std=0.1)
    return table
