"""Structured pruning with torch-pruning: whole channels go, weights really shrink, and a few epochs heal what was cut."""

from __future__ import annotations

import copy
import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from platform_assets.networks.checkpoint import Trained
from platform_assets.networks.fitting import Lesson, fit, hidden_shares
from platform_assets.stages.compression.methods import CompressionRefusedError

if TYPE_CHECKING:
    from platform_assets.stages.compression.methods import Teaching

HEALING_SHARE = 0.34  # of the teacher's epochs
HEALING_RATE = 0.3  # of the teacher's learning rate


def shrink(teaching: Teaching) -> Trained:
    """Cut the declared share of the widest inner channels and heal; a network without such channels is refused."""
    teacher = teaching.teacher
    network = copy.deepcopy(teacher.network)
    cut_channels(network, inputs=tuple(part[:2] for part in teaching.train), share=teaching.plan.prune_share)
    plan = replace(
        teacher.plan, epochs=max(1, round(teacher.plan.epochs * HEALING_SHARE)), learning_rate=teacher.plan.learning_rate * HEALING_RATE
    )
    torch.manual_seed(plan.seed)
    lesson = Lesson(classes=len(teacher.schema.classes), soft=teaching.targets, hide=hidden_shares(teacher.schema))
    fitted = fit(
        network, train=teaching.train, labels=teaching.train_rows.labels, calibration=teaching.calibration,
        calibration_labels=teaching.calibration_rows.labels, plan=plan, lesson=lesson, report=teaching.report, name="prune",
    )  # fmt: skip
    return Trained(fitted.network, plan, teacher.preprocessing, teacher.schema)


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
        raise CompressionRefusedError(
            f"compression.prune_share {share} cuts not one channel of {type(network).__name__}; raise it or widen the network"
        )
    return cut
