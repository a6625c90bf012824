"""Summed rows: one kernel for what is looked up and added up, with the values and gradients of the two plain operators."""

from __future__ import annotations

import torch
from torch import nn

from platform_assets.networks.encoding import SummedRows


def test_summed_rows_are_the_sum_of_the_rows_looked_up():
    torch.manual_seed(0)
    table, plain = SummedRows(50, 8), nn.Embedding(50, 8)
    plain.load_state_dict(table.state_dict())
    ids, weights = torch.randint(0, 50, (200, 6)), torch.randn(200, 8)
    found, wanted = table(ids), plain(ids).sum(1)
    torch.testing.assert_close(found, wanted)
    (found * weights).sum().backward()
    (wanted * weights).sum().backward()
    torch.testing.assert_close(table.weight.grad, plain.weight.grad)
