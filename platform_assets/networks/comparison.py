"""Two trainings' weights held against each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from platform_assets.errors import TrainingError
from platform_assets.networks.checkpoint import CHECKPOINT
from platform_assets.networks.unpacking import load_tensors

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor


@dataclass(frozen=True)
class WeightsCompared:
    """How many numbers were compared, how many of them differ in any bit, by how much at most, and in which tensors."""

    numbers: int
    different: int
    largest: float
    tensors: tuple[str, ...]


def compare_weights(recorded: Path, again: Path) -> WeightsCompared:
    """Compare the checkpoints of two training folders, tensor by tensor; one that only one of them has differs whole."""
    one, other = (_state(folder) for folder in (recorded, again))
    numbers = different = 0
    largest, tensors = 0.0, []
    for name in sorted({*one, *other}):
        left, right = one.get(name), other.get(name)
        size = max(tensor.numel() for tensor in (left, right) if tensor is not None)
        numbers += size
        if left is None or right is None or left.shape != right.shape or left.dtype != right.dtype:
            different, largest = different + size, float("inf")
            tensors.append(name)
            continue
        unequal = int((left.reshape(-1, 1).view(torch.uint8) != right.reshape(-1, 1).view(torch.uint8)).any(dim=1).sum())
        if unequal:
            different += unequal
            largest = max(largest, float((left.double() - right.double()).abs().max()))
            tensors.append(name)
    return WeightsCompared(numbers, different, largest, tuple(tensors))


def _state(folder: Path) -> dict[str, Tensor]:
    file = folder / CHECKPOINT
    if not file.is_file():
        raise TrainingError(f"{folder} holds no {CHECKPOINT}; a training that ended well leaves one")
    state: dict[str, Tensor] = load_tensors(file)
    return {name: tensor.contiguous() for name, tensor in state.items()}
