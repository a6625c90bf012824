"""Low-rank factorisation: a wide matrix becomes two narrow ones by its singular values; `low_rank-25` keeps a quarter of them."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from platform_assets.stages.compression.methods import CompressionRefusedError

if TYPE_CHECKING:
    from platform_assets.stages.compression.teaching import Teaching

RATE = 1e-3


class LowRank(nn.Module):
    """A linear layer as two."""

    def __init__(self, layer: nn.Linear, rank: int) -> None:
        super().__init__()
        left, values, right = torch.linalg.svd(layer.weight.detach(), full_matrices=False)
        root = values[:rank].sqrt()
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.narrow = nn.Linear(layer.in_features, rank, bias=False)
        self.widen = nn.Linear(rank, layer.out_features)
        with torch.no_grad():
            self.narrow.weight.copy_(root[:, None] * right[:rank])
            self.widen.weight.copy_(left[:, :rank] * root)
            self.widen.bias.copy_(layer.bias if layer.bias is not None else torch.zeros(layer.out_features))

    def forward(self, given: Tensor) -> Tensor:
        """Return [..., out]."""
        widened: Tensor = self.widen(self.narrow(given))
        return widened


def start(model: nn.Module, option: str, teaching: Teaching) -> nn.Module:
    """Factorise, in a copy, every linear layer that has fewer weights as two; none of that kind is a refusal."""
    del teaching
    if hasattr(model, "write"):
        raise CompressionRefusedError("a student writes its own graph, which has no place for two matrices in one")
    network, share, cut = copy.deepcopy(model), int(option) / 100, 0
    for parent in list(network.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, nn.Linear):
                rank = max(1, int(min(layer.weight.shape) * share))
                if rank * sum(layer.weight.shape) < layer.weight.numel():
                    setattr(parent, name, LowRank(layer, rank))
                    cut += 1
    if not cut:
        raise CompressionRefusedError(f"{type(network).__name__} has no matrix that {option} % of its rank make smaller")
    return network
