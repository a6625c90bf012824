"""Distillation: a small perceptron learns the teacher's probabilities (Hinton, Vinyals, Dean, 2015).

Of a text it reads the bag of word pieces alone.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from platform_assets.networks.architectures import build_network
from platform_assets.networks.checkpoint import Trained
from platform_assets.networks.fitting import Lesson, fit, hidden_shares

if TYPE_CHECKING:
    from platform_assets.stages.compression.methods import Teaching

STUDENT_RATE = 3e-3
STUDENT_WARP = 0.5


def shrink(teaching: Teaching) -> Trained:
    """Train the declared student; its preprocessing is the teacher's."""
    teacher = teaching.teacher
    plan = replace(
        teacher.plan, architecture="tabular_mlp", module=None, options={},
        width=teaching.plan.student_width, depth=teaching.plan.student_depth,
        heads=1, epochs=teaching.plan.student_epochs, learning_rate=STUDENT_RATE, dropout=teacher.plan.dropout,
    )  # fmt: skip
    torch.manual_seed(plan.seed)
    classes = len(teacher.schema.classes)
    student = build_network(plan, preprocessing=teacher.preprocessing, classes=classes)
    lesson = Lesson(
        classes=classes, soft=teaching.targets, warp=STUDENT_WARP if teacher.preprocessing.image_size else 0.0,
        hide=hidden_shares(teacher.schema),
    )  # fmt: skip
    fitted = fit(
        student, train=teaching.train, labels=teaching.train_rows.labels, calibration=teaching.calibration,
        calibration_labels=teaching.calibration_rows.labels, plan=plan, lesson=lesson, report=teaching.report, name="distil",
    )  # fmt: skip
    return Trained(fitted.network, plan, teacher.preprocessing, teacher.schema)
