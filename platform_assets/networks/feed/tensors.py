"""A feed from tensors in memory: small sets, and the distillation that learns from a teacher's probabilities."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from platform_assets.networks.feed.protocol import Part

if TYPE_CHECKING:
    from collections.abc import Iterator

    from platform_assets.networks.feed.protocol import Batch


class TensorFeed:
    """Batches cut by index from whole tensors of equal length; a batch larger than the set is the whole set."""

    def __init__(self, tensors: Batch, *, batch: int, seed: int, rank: int = 0, world: int = 1) -> None:
        self._tensors = tensors
        self._seed = seed
        self.rows = len(tensors[0])
        self._part = Part(min(batch, self.rows), rank=rank, world=world)
        self.steps = self.rows // self._part.batch

    def batches(self, epoch: int, *, start: int = 0) -> Iterator[Batch]:
        """Cut this rank's rows out of each global batch from step `start` on."""
        order = torch.from_numpy(np.random.default_rng((self._seed, epoch)).permutation(self.rows))
        for step in range(start, self.steps):
            base = step * self._part.batch
            chosen = order[base + self._part.first : base + self._part.end]
            yield tuple(tensor[chosen] for tensor in self._tensors)
