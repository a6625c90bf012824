"""The state of a training in memory: taken from a module and its optimiser, and put back, whatever the number of processes.

Everything is kept whole and by parameter name, so that a state taken on four processes with sharded weights goes on alone on one.
"""

from __future__ import annotations

import random
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from torch import nn
    from torch.optim import Optimizer


def local(tensor: Tensor) -> Tensor:
    """Return the part of a tensor that this process holds, sharing its memory: all of it unless it is sharded."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole(tensor: Tensor, *, keep: bool = True) -> Tensor | None:
    """Copy all of a tensor to the CPU; every process must call it for a sharded one, and gets None where it does not `keep` it."""
    full = tensor.detach()
    full = full.full_tensor() if isinstance(full, DTensor) else full
    return full.to("cpu", copy=True) if keep else None


def put(target: Tensor, value: Tensor) -> None:
    """Overwrite a tensor, sharded or not, with a whole one that each process holds."""
    with torch.no_grad():
        if isinstance(target, DTensor):
            target.copy_(distribute_tensor(value.to(target.device), target.device_mesh, target.placements, src_data_rank=None))
        else:
            target.copy_(value)


def take_module(module: nn.Module, *, keep: bool = True) -> dict[str, Tensor]:
    """Weights and buffers by name; empty where they are not kept."""
    taken = {name: whole(value, keep=keep) for name, value in module.state_dict().items()}
    return {name: value for name, value in taken.items() if value is not None}


def put_module(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Put weights and buffers back."""
    for name, value in module.state_dict().items():
        put(value, state[name])


def take_optimiser(optimiser: Optimizer, module: nn.Module, *, keep: bool = True) -> dict[str, Any]:
    """State of each parameter by the parameter's name, and the groups' settings."""
    names = {id(weight): name for name, weight in module.named_parameters()}
    state: dict[str, dict[str, Any]] = {}
    for group in optimiser.param_groups:
        for weight in group["params"]:
            values = optimiser.state.get(weight, {})
            state[names[id(weight)]] = {k: whole(v, keep=keep) if isinstance(v, Tensor) else v for k, v in values.items()}
    groups = [{k: v for k, v in group.items() if k != "params"} for group in optimiser.param_groups]
    return {"state": state, "groups": groups} if keep else {}


def put_optimiser(optimiser: Optimizer, module: nn.Module, taken: Mapping[str, Any]) -> None:
    """Put the optimiser's state back; moments are cut as their parameter is."""
    names = {id(weight): name for name, weight in module.named_parameters()}
    optimiser.state = defaultdict(dict)
    for group, settings in zip(optimiser.param_groups, taken["groups"], strict=True):
        group.update(settings)
        for weight in group["params"]:
            values = taken["state"][names[id(weight)]]
            if values:
                beside = bool(group.get("fused") or group.get("capturable"))
                optimiser.state[weight] = {key: _place(key, value, weight, step_beside=beside) for key, value in values.items()}


def _place(key: str, value: Any, weight: Tensor, *, step_beside: bool) -> Any:
    if not isinstance(value, Tensor):
        return value
    if key == "step":  # fused kernels want the count of steps beside the weights, the others on the CPU
        return value.to(weight.device, copy=True) if step_beside else value.clone()
    if value.shape != weight.shape:
        return value.to(weight.device, copy=True)
    placed = torch.zeros_like(weight, dtype=value.dtype)
    put(placed, value)
    return placed.detach()


def take_chance() -> dict[str, Any]:
    """State of every random number generator of this process, as tensors and plain values."""
    kind, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)  # noqa: NPY002 -- a user's module may draw from it
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
        "numpy": (str(kind), torch.from_numpy(np.asarray(keys).astype(np.int64)), int(position), int(has_gauss), float(gauss)),
        "python": random.getstate(),
    }


def put_chance(taken: Mapping[str, Any]) -> None:
    """Put every random number generator back."""
    torch.set_rng_state(taken["torch"])
    if taken["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(taken["cuda"])
    kind, keys, position, has_gauss, gauss = taken["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), position, has_gauss, gauss))  # noqa: NPY002
    random.setstate(taken["python"])


def seed_chance(seed: int, *, rank: int) -> None:
    """Seed every random number generator of this process; ranks draw apart."""
    mixed = seed + rank * 1_000_003
    torch.manual_seed(mixed)
    np.random.seed(mixed % 2**32)  # noqa: NPY002
    random.seed(mixed)


class Average:
    """A moving average of weights (Polyak and Juditsky, 1992), held beside a network and swapped in to be judged."""

    def __init__(self, weights: Iterable[nn.Parameter]) -> None:
        self._weights = [weight for weight in weights if weight.requires_grad]
        self.kept = [weight.detach().clone() for weight in self._weights]
        self._from = [local(weight.detach()) for weight in self._weights]
        self._to = [local(kept) for kept in self.kept]

    @torch.no_grad()
    def move(self, share: float) -> None:
        """Move by `share` of the way to the weights as they are now."""
        torch._foreach_lerp_(self._to, self._from, share)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange the weights and their average."""
        for ours, theirs in zip(self._to, self._from, strict=True):
            before = theirs.clone()
            theirs.copy_(ours)
            ours.copy_(before)

    def take(self, *, keep: bool = True) -> list[Tensor]:
        """Copy the average, whole."""
        taken = [whole(kept, keep=keep) for kept in self.kept]
        return [value for value in taken if value is not None]

    def put(self, taken: Iterable[Tensor]) -> None:
        """Put the average back."""
        for kept, value in zip(self.kept, taken, strict=True):
            put(kept, value)
