"""Compression methods, one file each, named as in the declaration; `a+b` is method b applied to what a gave.

A file offers `shrink(network, lesson) -> Trained` where it works on a network, or `quantise(source, target)` where on an ONNX file.
A method that cannot be applied raises CompressionRefusedError with the reason, which becomes the candidate's rejection.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from platform_assets.errors import StageError

if TYPE_CHECKING:
    import torch

    from platform_assets.networks.checkpoint import Trained
    from platform_assets.networks.companions import Report
    from platform_assets.networks.fitting import Arrays
    from platform_assets.networks.plans import CompressionPlan
    from platform_assets.networks.rows import Rows

SOFT_SHARE = 0.7  # of a pupil's target that is the teacher's word, the rest being the labels (Hinton et al., 2015)


class CompressionRefusedError(StageError):
    """This method cannot be applied to this network; the message says why."""


@dataclass(frozen=True)
class Teaching:
    """What a method that works on networks is given."""

    teacher: Trained
    plan: CompressionPlan
    train: Arrays
    train_rows: Rows
    calibration: Arrays
    calibration_rows: Rows
    targets: torch.Tensor
    report: Report
