"""scikit-learn's histogram trees, distilled, as one TreeEnsemble node: `trees-30x16` is 30 trees of 16 leaves. Tables of two classes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from platform_assets.stages.compression.methods import CompressionRefusedError
from platform_assets.stages.compression.students.forest import fit_forest
from platform_assets.stages.compression.students.tables import fit_code

if TYPE_CHECKING:
    from torch import nn

    from platform_assets.stages.compression.students.forest import Forest
    from platform_assets.stages.compression.teaching import Teaching

RATE = 0.0  # what it gives has learnt all it can
ROUNDS = 2  # the real rows and one variation of each: with more of them, what only the labels know is lost
TRAVEL = 6.0  # sum of all trees' rates


def start(model: nn.Module, option: str, teaching: Teaching) -> Forest:
    """Fit the trees; `model`, the teacher, stays as it is."""
    del model
    fitted, lessons = teaching.teacher.preprocessing, teaching.lessons
    if fitted.image_size or fitted.tokeniser is not None:
        raise CompressionRefusedError("trees read numbers, dates and categories, neither pictures nor texts")
    if lessons.targets.shape[1] != 2:  # noqa: PLR2004 - one logit
        raise CompressionRefusedError("these trees answer for two classes")
    trees, leaves = (int(part) for part in option.split("x"))
    rows = lessons.plain * ROUNDS
    numeric, ids, targets = (part[:rows].numpy() for part in (*lessons.inputs[:2], lessons.targets))
    code = fit_code(fitted, ids[: lessons.plain], logits=lessons.targets[: lessons.plain].clamp(1e-4).log().numpy())
    columns = code.encode(numeric, ids)
    return fit_forest(code, columns, targets, trees=trees, leaves=leaves, rate=min(0.3, TRAVEL / trees), seed=teaching.teacher.plan.seed)
