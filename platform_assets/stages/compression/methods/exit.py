"""Early exit: the first blocks answer, the others go (Teerapittayanon et al., 2016); `exit-1` answers after one block.

The place is the same for all rows: an exit by each row's own confidence would run as long as a batch's slowest row.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

from torch import nn

from platform_assets.networks.blocks import Blocks
from platform_assets.stages.compression.methods import CompressionRefusedError

if TYPE_CHECKING:
    from platform_assets.stages.compression.teaching import Teaching

RATE = 2e-3


def start(model: nn.Module, option: str, teaching: Teaching) -> nn.Module:
    """Keep the first blocks of a copy; a network without a row of so many blocks is refused."""
    del teaching
    network, kept = copy.deepcopy(model), int(option)
    rows = [(parent, name, part) for parent in network.modules() for name, part in parent.named_children() if isinstance(part, Blocks)]
    if not rows or any(len(part) <= kept for _, _, part in rows):
        raise CompressionRefusedError(f"{type(network).__name__} has no row of more than {kept} blocks to leave early")
    for parent, name, part in rows:
        setattr(parent, name, Blocks(list(part)[:kept]))
    return network
