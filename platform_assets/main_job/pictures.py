"""The picture of one model's life in production: quality by window of the log, drift and versions marked."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING

from platform_assets import keys
from platform_assets.components.retraining_evidence import read_drift
from platform_assets.components.step import latest_record
from platform_assets.main_job.summary import metric_of, read_classes, read_log
from platform_assets.specs.records import DriftPointer, RolloutVerdict

if TYPE_CHECKING:
    import dagster as dg

    from platform_assets.specs.model import ModelSpec
    from resources.parts import Parts

_POINTS = 40


def draw_life(model: ModelSpec, parts: Parts, instance: dg.DagsterInstance) -> str | None:
    """Draw the leading metric over the production log as a PNG data URI; None before the first request."""
    from matplotlib.figure import Figure

    log = read_log(model, parts)
    if log is None or not log.num_rows:
        return None
    classes = read_classes(parts, latest_record(instance, keys.model_key(model.name, "rollout_verdict"), RolloutVerdict))
    size = max(log.num_rows // _POINTS, min(100, log.num_rows))
    starts = range(0, log.num_rows - size // 2, size)
    values = [(start + size / 2, metric_of(log.slice(start, size), model, classes)) for start in starts]
    figure = Figure(figsize=(8, 3), layout="constrained")
    axes = figure.add_subplot()
    axes.plot([x for x, y in values if y is not None], [y for _, y in values if y is not None], marker="o", markersize=3, color="#0b6e4f")
    report = read_drift(parts, latest_record(instance, keys.model_key(model.name, "drift_report"), DriftPointer))
    for window in report.windows:
        if window.drifted:
            axes.axvspan(window.first_row, window.last_row, color="#d1495b", alpha=0.15, lw=0)
    digests = log.column("digest").to_pylist()
    for row in (i for i in range(1, len(digests)) if digests[i] != digests[i - 1] and digests[i] not in digests[:i]):
        axes.axvline(row, color="#1d3557", linestyle="--", lw=1)
        axes.annotate(f" {digests[row][:8]}", (row, axes.get_ylim()[0]), fontsize=7, color="#1d3557")
    axes.set_xlabel("row of the production log (shaded: window drifted; dashed: first answer of a new version)")
    axes.set_ylabel(model.leading_metric)
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=110)
    return f"data:image/png;base64,{base64.b64encode(out.getvalue()).decode()}"
