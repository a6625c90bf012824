"""Distillation (Hinton et al., 2015): a small student learns the teacher's word, as `...h` its hidden layer too (Romero et al., 2015).

Options: `w64d2` a perceptron of two layers of 64; `w16d1v60` one that knows only the 60 categories that matter most; `c8` convolutions,
8 channels at first, `s8` such with wider steps; `b64` the perceptron over the bag of a text's word pieces.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from platform_assets.networks.architectures import build_network
from platform_assets.networks.preprocessing import UNKNOWN
from platform_assets.stages.compression.methods import CompressionRefusedError
from platform_assets.stages.compression.students.convolutional import ConvolutionalStudent
from platform_assets.stages.compression.students.perceptron import Perceptron

if TYPE_CHECKING:
    from torch import nn

    from platform_assets.stages.compression.teaching import Teaching

RATE = 6e-3
BINS = 12
_FORM = re.compile(r"(?:w(?P<width>\d+)d(?P<depth>\d+)(?:v(?P<values>\d+))?|(?P<speed>[cs])(?P<channels>\d+)|b(?P<bag>\d+))h?")


def start(model: nn.Module, option: str, teaching: Teaching) -> nn.Module:
    """Make the untrained student of that form; `model`, the teacher, stays as it is."""
    del model
    teacher, shape = teaching.teacher, _FORM.fullmatch(option)
    if shape is None:
        raise CompressionRefusedError(f"no student of the form {option!r}; write w64d2, w16d1v60, c8, s8 or b64")
    classes, fitted = len(teacher.schema.classes), teacher.preprocessing
    torch.manual_seed(teacher.plan.seed)
    if shape["bag"]:
        plan = replace(
            teacher.plan, architecture="tabular_mlp", module=None, options={}, width=int(shape["bag"]), depth=1, heads=1, dropout=0.0
        )
        return build_network(plan, preprocessing=fitted, classes=classes)
    if fitted.tokeniser is not None:
        raise CompressionRefusedError("a text is read by a bag of its word pieces alone, form b64")
    if shape["channels"]:
        if not fitted.image_size or fitted.numbers or fitted.categories:
            raise CompressionRefusedError("convolutions read one picture and nothing else")
        return ConvolutionalStudent(fitted, classes=classes, channels=int(shape["channels"]), swift=shape["speed"] == "s")
    kept = weigh_categories(teaching)[: int(shape["values"])] if shape["values"] else weigh_categories(teaching)
    return Perceptron(
        fitted,
        classes=classes,
        width=int(shape["width"]),
        depth=int(shape["depth"]),
        bins=BINS,
        kept=tuple(sorted(int(row) for row in kept)),
    )


def weigh_categories(teaching: Teaching) -> list[int]:
    """Rows of the common table, those first whose rows' mean answer is farthest from the mean of all, weighted by how many they are."""
    fitted = teaching.teacher.preprocessing
    if not fitted.categories:
        return []
    plain = teaching.lessons.plain
    said = teaching.lessons.targets[:plain].clamp(1e-4).log().numpy()
    said, ids = said - said.mean(0), teaching.lessons.inputs[1][:plain].numpy()
    rows = sum(column.size for column in fitted.categories)
    weight = np.zeros(rows)
    for column in ids.T:
        count = np.bincount(column, minlength=rows)
        total = np.stack([np.bincount(column, weights=kind, minlength=rows) for kind in said.T])
        weight += (total**2).sum(0) / np.maximum(count, 1)
    weight[[offset + UNKNOWN for offset in fitted.offsets]] = 0
    return [int(row) for row in np.argsort(-weight) if weight[row] > 0]
