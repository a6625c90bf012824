"""Oblivious trees, distilled, as constants: `tables-30x5` is 30 trees of five questions. The smallest files of a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from platform_assets.stages.compression.methods import CompressionRefusedError
from platform_assets.stages.compression.methods.trees import ROUNDS, TRAVEL
from platform_assets.stages.compression.students.boosting import fit_oblivious
from platform_assets.stages.compression.students.tables import fit_code

if TYPE_CHECKING:
    from torch import nn

    from platform_assets.stages.compression.students.boosting import Oblivious
    from platform_assets.stages.compression.teaching import Teaching

RATE = 0.0


def start(model: nn.Module, option: str, teaching: Teaching) -> Oblivious:
    """Fit the trees; `model`, the teacher, stays as it is."""
    del model
    fitted, lessons = teaching.teacher.preprocessing, teaching.lessons
    if fitted.image_size or fitted.tokeniser is not None:
        raise CompressionRefusedError("trees read numbers, dates and categories, neither pictures nor texts")
    trees, depth = (int(part) for part in option.split("x"))
    rows = lessons.plain * ROUNDS
    numeric, ids, targets = (part[:rows].numpy() for part in (*lessons.inputs[:2], lessons.targets))
    code = fit_code(fitted, ids[: lessons.plain], logits=lessons.targets[: lessons.plain].clamp(1e-4).log().numpy())
    return fit_oblivious(
        code, code.encode(numeric, ids), targets, trees=trees, depth=depth, rate=min(0.4, TRAVEL / trees),
        seed=teaching.teacher.plan.seed,
    )  # fmt: skip
