"""Architectures, one file each, named as in the declaration. A file offers `build`; nothing else registers it.

Every network is called as `network(numeric, ids, image)` with [N, 0] tensors where the model has no such features, and with the tokens
of its texts, int [N, tokens], as a fourth where it has text; it returns logits [N, classes].
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING

from platform_assets.errors import TrainingError

if TYPE_CHECKING:
    from torch import nn

    from platform_assets.networks.plans import TrainingPlan
    from platform_assets.networks.preprocessing import Preprocessing


def build_network(plan: TrainingPlan, *, preprocessing: Preprocessing, classes: int) -> nn.Module:
    """Make an untrained network; a name without a file, or inputs it cannot take, raise TrainingError."""
    module = f"{__name__}.{plan.architecture}"
    if not plan.architecture.isidentifier() or find_spec(module) is None:
        raise TrainingError(f"no architecture {plan.architecture!r}; architectures are the files of platform_assets/networks/architectures")
    if plan.width % plan.heads and plan.architecture.endswith("_transformer"):
        raise TrainingError(f"training.width {plan.width} is not a multiple of training.heads {plan.heads}; change one in the declaration")
    network: nn.Module = import_module(module).build(plan, preprocessing=preprocessing, classes=classes)
    return network
