"""Transformer blocks that the architectures share: pre-norm attention and feed-forward, explicit so that export gives few nodes."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Attention(nn.Module):
    """Multi-head attention (Vaswani et al., 2017): queries [N, Q, width] over tokens [N, T, width]."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def forward(self, queries: Tensor, tokens: Tensor) -> Tensor:
        """Return [N, Q, width]."""
        head = self.query.out_features // self.heads
        query = self.query(queries).unflatten(-1, (self.heads, head)).transpose(1, 2)
        key, value = self.key_value(tokens).unflatten(-1, (2, self.heads, head)).permute(2, 0, 3, 1, 4).unbind(0)
        weights = ((query * head**-0.5) @ key.transpose(-1, -2)).softmax(-1)
        return self.out((weights @ value).transpose(1, 2).flatten(2))


class TokenDropout(nn.Module):
    """Drops whole tokens of what a layer adds: on a CPU the random numbers of a mask for each channel took a sixth of a training step."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.keep = 1 - share

    def forward(self, added: Tensor) -> Tensor:
        """Return [N, T, width], unchanged in evaluation mode."""
        if not self.training or self.keep == 1:
            return added
        return added * added.new_empty(*added.shape[:2], 1).bernoulli_(self.keep).div_(self.keep)


class Block(nn.Module):
    """Attention, then a feed-forward layer of twice the width, each with its residual."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.norm_attention = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.norm_feed = nn.LayerNorm(width)
        self.widen = nn.Linear(width, 2 * width)
        self.narrow = nn.Linear(2 * width, width)
        self.dropout = TokenDropout(dropout)

    def forward(self, tokens: Tensor, queries: int) -> Tensor:
        """Return the first `queries` tokens, after they looked at all of them."""
        normed = self.norm_attention(tokens)
        kept = tokens[:, :queries] + self.dropout(self.attention(normed[:, :queries], normed))
        return kept + self.dropout(self.narrow(torch.relu(self.widen(self.norm_feed(kept)))))


class Encoder(nn.Module):
    """A summary token before the others, through `depth` blocks; the last block answers for the summary alone."""

    def __init__(self, *, width: int, depth: int, heads: int, dropout: float, classes: int) -> None:
        super().__init__()
        self.summary = nn.Parameter(torch.randn(1, 1, width) * 0.1)
        self.blocks = nn.ModuleList(Block(width, heads, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens [N, T, width] -> logits [N, classes]."""
        tokens = torch.cat([self.summary.expand(tokens.shape[0], -1, -1), tokens], dim=1)
        last = len(self.blocks) - 1
        for position, block in enumerate(self.blocks):
            tokens = block(tokens, 1 if position == last else tokens.shape[1])
        return self.head(self.norm(tokens[:, 0]))

    def prunable(self) -> list[nn.Linear]:
        """Layers whose output channels may be cut without touching the width of a token."""
        return [block.widen for block in self.blocks if isinstance(block, Block)]
