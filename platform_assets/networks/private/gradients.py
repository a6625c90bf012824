"""The gradient of each row by itself: torch.func over one row at a time, so that no row of a batch can move another's.

Opacus' own hooks know torch's layers one by one and not parameters that stand beside them (a transformer's summary token); this way takes
any network whose training is a pure function of weights and rows.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

if TYPE_CHECKING:
    from collections.abc import Sequence


class RowGradients:
    """Gradients of the cross entropy of `network`, whose parts are told that they are run row by row from now on."""

    def __init__(self, network: nn.Module) -> None:
        for part in network.modules():
            if hasattr(part, "row_by_row"):
                setattr(part, "row_by_row", True)  # noqa: B010 - mypy knows no attribute of a module's by its name
        self._network = network
        self._weights = {name: weight for name, weight in network.named_parameters() if weight.requires_grad}
        self._of_rows = vmap(grad(self._loss), in_dims=(None, 0, 0), randomness="different")

    def lay_down(self, inputs: Sequence[Tensor], target: Tensor) -> None:
        """Put `grad_sample` [n, *shape] beside every weight; n may be nought."""
        if len(target):
            found = self._of_rows({name: weight.detach() for name, weight in self._weights.items()}, tuple(inputs), target)
        else:
            found = {name: weight.new_zeros(0, *weight.shape) for name, weight in self._weights.items()}
        for name, weight in self._weights.items():
            weight.grad_sample = found[name]  # type: ignore[attr-defined]  # where Opacus looks for it

    def _loss(self, weights: dict[str, Tensor], inputs: tuple[Tensor, ...], target: Tensor) -> Tensor:
        row = tuple(part.unsqueeze(0) for part in inputs)
        return nn.functional.cross_entropy(functional_call(self._network, weights, row), target.unsqueeze(0))


def rows_at_once(network: nn.Module, *, most_bytes: int) -> int:
    """Return for how many rows gradients of all weights fit into so many bytes."""
    each = sum(weight.numel() * weight.element_size() for weight in network.parameters() if weight.requires_grad)
    return max(1, most_bytes // max(1, each))


def secret_generator(device: torch.device) -> torch.Generator:
    """Return a generator seeded by the system: noise that follows from a declared seed could be taken away again."""
    return torch.Generator(device).manual_seed(secrets.randbits(63))
