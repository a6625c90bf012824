"""Transformer blocks that the architectures share: pre-norm attention and feed-forward, explicit so that export gives few nodes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from platform_assets.errors import TrainingError
from platform_assets.networks.dropout import TokenDropout

FUSED_FROM = 64  # tokens from which the fused kernel is used outside export: it keeps no [T, T] weights


class Attention(nn.Module):
    """Multi-head attention (Vaswani et al., 2017): queries [N, Q, width] over tokens [N, T, width]."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def forward(self, queries: Tensor, tokens: Tensor, seen: Tensor | None = None) -> Tensor:
        """Return [N, Q, width]; tokens where `seen`, bool [N, 1, 1, T], is false are not looked at."""
        head = self.query.out_features // self.heads
        query = self.query(queries).unflatten(-1, (self.heads, head)).transpose(1, 2)
        key, value = self.key_value(tokens).unflatten(-1, (2, self.heads, head)).permute(2, 0, 3, 1, 4).unbind(0)
        if not torch.jit.is_tracing() and tokens.shape[1] >= FUSED_FROM:
            mixed = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=seen)
        else:
            scores = (query * head**-0.5) @ key.transpose(-1, -2)
            mixed = (scores if seen is None else scores.masked_fill(~seen, float("-inf"))).softmax(-1) @ value
        return self.out(mixed.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Attention, then a feed-forward layer of `spread` times the width, each with its residual."""

    def __init__(self, width: int, heads: int, dropout: float, *, spread: int = 2) -> None:
        super().__init__()
        self.norm_attention = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.norm_feed = nn.LayerNorm(width)
        self.widen = nn.Linear(width, spread * width)
        self.narrow = nn.Linear(spread * width, width)
        self.dropout = TokenDropout(dropout)

    def forward(self, tokens: Tensor, queries: int, seen: Tensor | None = None) -> Tensor:
        """Return the first `queries` tokens, after they looked at all that are seen."""
        normed = self.norm_attention(tokens)
        kept = tokens[:, :queries] + self.dropout(self.attention(normed[:, :queries], normed, seen))
        return kept + self.dropout(self.narrow(torch.relu(self.widen(self.norm_feed(kept)))))


class Blocks(nn.ModuleList):
    """Blocks in a row; asked to, it computes what is inside each again in the backward pass instead of keeping it while training."""

    recomputes = False

    def run(self, place: int, *inputs: Any) -> Tensor:
        """Run one block."""
        if self.recomputes and self.training:
            again: Tensor = checkpoint(self[place], *inputs, use_reentrant=False)
            return again
        output: Tensor = self[place](*inputs)
        return output


def recompute_activations(module: nn.Module) -> None:
    """Turn gradient checkpointing on (Chen et al., 2016) in every row of blocks; a network without one raises TrainingError."""
    rows = [part for part in module.modules() if isinstance(part, Blocks)]
    if not rows:
        name = type(getattr(module, "network", module)).__name__
        raise TrainingError(f"training.gradient_checkpointing was asked for, but {name} has no blocks to compute again; leave it out")
    for row in rows:
        row.recomputes = True


class Encoder(nn.Module):
    """A summary token before the others, through `depth` blocks; the last block answers for the summary alone."""

    def __init__(self, *, width: int, depth: int, heads: int, dropout: float, classes: int, spread: int = 2) -> None:
        super().__init__()
        self.summary = nn.Parameter(torch.randn(1, 1, width) * 0.1)
        self.blocks = Blocks(Block(width, heads, dropout, spread=spread) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)

    def forward(self, tokens: Tensor, seen: Tensor | None = None) -> Tensor:
        """Tokens [N, T, width] -> logits [N, classes]; where `seen`, bool [N, T], is false a token is as if it were not there."""
        tokens = torch.cat([self.summary.expand(tokens.shape[0], -1, -1), tokens], dim=1)
        if seen is not None:
            seen = nn.functional.pad(seen, (1, 0), value=True)[:, None, None]
        last = len(self.blocks) - 1
        for place in range(last + 1):
            tokens = self.blocks.run(place, tokens, 1 if place == last else tokens.shape[1], seen)
        return self.head(self.norm(tokens[:, 0]))

    def prunable(self) -> list[nn.Linear]:
        """Layers whose output channels may be cut without touching the width of a token."""
        return [block.widen for block in self.blocks if isinstance(block, Block)]
