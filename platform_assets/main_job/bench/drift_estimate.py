"""Area `drift`: what the estimate without labels says of shuffled windows, and of those in which a drift costs the model two points."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from platform_assets.main_job.bench.core import Row, describe_row, judge_row
from platform_assets.main_job.bench.drift import read_stream
from platform_assets.main_job.bench.drift_injected import KINDS, ROWS, inject, lay_bed, size_of
from platform_assets.measures import measure as measure_answers
from platform_assets.stages.monitoring.drift import Window
from platform_assets.stages.monitoring.estimate import calibrate, estimate_window

if TYPE_CHECKING:
    from rich.console import Console

    from platform_assets.main_job.bench.drift_injected import Bed
    from platform_assets.specs.estimate import WindowEstimate

_UNSEEN = 2000  # rows that are calibrated on
_WINDOWS, _QUICK_WINDOWS, _EACH = 30, 20, 5
_COVERS = 0.95  # declared
_DROP = 0.03


def measure(*, quick: bool, console: Console) -> list[Row]:
    """Return how often the truth lies in the interval without a drift, and what is estimated where one harms."""
    console.print("estimating without labels")
    stream = read_stream("hotel_bookings")
    inside: list[bool] = []
    harmed: list[tuple[float, float, bool]] = []
    for seed in range(1, 2 if quick else 3):
        bed = lay_bed(stream, seed=seed)
        for window in range(1, 1 + (_QUICK_WINDOWS if quick else _WINDOWS)):
            found, true = _estimate(bed, *bed.rows(window), window=window)
            inside.append(found.low <= true <= found.high)
        for kind in KINDS[:2] if quick else KINDS:
            size, _ = size_of(bed, kind)
            for window in range(1, 1 + _EACH):
                found, true = _estimate(bed, *inject(bed, kind, size, *bed.rows(window), seed=window), window=window)
                harmed.append((found.value, true, found.dropped))
    estimated, true_, dropped = (round(float(np.mean(column)), 4) for column in zip(*harmed, strict=True))
    covered = round(float(np.mean(inside)), 4)
    return [
        judge_row(
            f"estimate without labels, truth in the 95 % interval, {len(inside)} shuffled windows",
            value=covered, unit="share", must=_COVERS, better="higher",
        ),
        describe_row(
            f"where a drift costs two points, {len(harmed)} windows: AUROC, against the true", value=estimated, unit="", against=true_
        ),
        describe_row("of these, called a drop", value=dropped, unit="share"),
    ]  # fmt: skip


def _estimate(bed: Bed, values: np.ndarray, targets: np.ndarray, *, window: int) -> tuple[WindowEstimate, float]:
    """Return estimate and true AUROC of a window, calibrated on some rows of other windows, others for each: one sample may be lucky."""
    others = np.setdiff1d(np.arange(len(bed.values)), np.arange(window * ROWS, (window + 1) * ROWS))
    drawn = np.random.default_rng(window).choice(others, _UNSEEN, replace=False)
    unseen, labels = bed.answer(bed.values[drawn]), bed.targets[drawn].astype(int)
    calibration = calibrate(unseen, labels, kind="binary")
    assert calibration is not None
    promised = measure_answers(labels, probabilities=unseen, kind="binary")["auroc"]
    answers = bed.answer(values)
    found = estimate_window(
        answers, window=Window(window, 0, ROWS - 1, ("bench",)), last_event="", calibration=calibration, kind="binary", promised=promised,
        drop=_DROP,
    )  # fmt: skip
    assert found is not None
    return found, measure_answers(targets.astype(int), probabilities=answers, kind="binary")["auroc"]
