"""Structured pruning with torch-pruning: whole channels go with all that depends on them; `prune-50` cuts half of those of each layer."""

from __future__ import annotations

import copy
import warnings
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from platform_assets.stages.compression.methods import CompressionRefusedError

if TYPE_CHECKING:
    from platform_assets.stages.compression.teaching import Teaching

RATE = 1e-3


def start(model: nn.Module, option: str, teaching: Teaching) -> nn.Module:
    """Cut the share of the inner channels in a copy; a network without such channels is refused."""
    network = copy.deepcopy(model)
    cut_channels(network, inputs=tuple(part[:2] for part in teaching.lessons.inputs), share=int(option) / 100)
    return network


def cut_channels(network: nn.Module, *, inputs: tuple[torch.Tensor, ...], share: float) -> int:
    """Remove the channels of least group magnitude from every layer the network names in `prunable`; return how many."""
    import torch_pruning as tp

    layers: list[nn.Linear | nn.Conv2d] = getattr(network, "prunable", list)()
    if not layers:
        raise CompressionRefusedError(f"{type(network).__name__} names no layer whose channels may be cut (method `prunable`)")
    network.eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it speaks of positions and the summary token, whose width no cut here touches
        graph: Any = tp.DependencyGraph().build_dependency(network, example_inputs=inputs)
    importance = tp.importance.GroupMagnitudeImportance(p=2)
    cut = 0
    for layer in layers:
        channels, cut_out = (
            layer.weight.shape[0],
            tp.prune_conv_out_channels if isinstance(layer, nn.Conv2d) else tp.prune_linear_out_channels,
        )
        cut_here = int(channels * share)
        if not cut_here:
            continue
        every = graph.get_pruning_group(layer, cut_out, idxs=list(range(channels)))
        least = torch.argsort(importance(every))[:cut_here].tolist()
        graph.get_pruning_group(layer, cut_out, idxs=least).prune()
        cut += cut_here
    if not cut:
        raise CompressionRefusedError(f"a share of {share:g} cuts not one channel of {type(network).__name__}")
    return cut
