"""Pictures of trainings and candidates as PNG bytes: learning curve with calibration, and the frontier of accuracy, latency and size."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from platform_assets.measures import METRICS
from platform_assets.specs.candidates import Candidate
from platform_assets.specs.record_json import read_record
from platform_assets.specs.records import FeatureSchema

if TYPE_CHECKING:
    from numpy.typing import NDArray

INK, WATER, SAND = "#22313a", "#1f7a8c", "#c98b3b"
CALIBRATION_BINS = 10


def draw_training(training: Path, *, data: Path, kind: str) -> bytes:
    """Learning curve, and how often what the teacher says with a confidence comes true on the holdout."""
    figure, (left, right) = _figure(2)
    curve = json.loads((training / "curve.json").read_text())
    epochs = [point["epoch"] for point in curve]
    name = METRICS[kind][0]
    if all("train_loss" in point for point in curve):  # a private training does not tell it
        left.plot(epochs, [point["train_loss"] for point in curve], color=SAND, label="training loss")
    left.plot(epochs, [point["calibration_log_loss"] for point in curve], color=WATER, label="calibration log loss")
    left.plot(
        epochs, [point.get(f"calibration_{name}", float("nan")) for point in curve], color=INK, linestyle=":", label=f"calibration {name}"
    )
    left.set(title="Learning curve", xlabel="epoch")
    left.legend(frameon=False)
    said, came_true, share = calibration_points(np.load(training / "predictions_holdout.npy"), labels=_holdout_labels(data), kind=kind)
    right.plot([0, 1], [0, 1], color=SAND, linewidth=1)
    right.scatter(said, came_true, s=20 + 400 * share, color=WATER, alpha=0.8)
    right.set(title="Calibration on the holdout", xlabel="probability said", ylabel="share that came true", xlim=(0, 1), ylim=(0, 1))
    return _png(figure)


def draw_frontier(candidates: Sequence[Candidate], *, kind: str, front: Sequence[str] = (), chosen: str | None = None) -> bytes:
    """Leading metric against CPU time of one row; a point's area is the file's size, filled and named ones are on the Pareto front."""
    figure, (axes,) = _figure(1)
    name = METRICS[kind][0]
    largest = max(candidate.size_bytes for candidate in candidates)
    for place, candidate in enumerate(sorted(candidates, key=lambda one: one.cpu_us_b1)):
        colour = SAND if candidate.name == chosen else WATER
        axes.scatter(
            candidate.cpu_us_b1, candidate.metrics.get(name, float("nan")), s=60 + 500 * candidate.size_bytes / largest,
            edgecolor=colour, facecolor=colour if candidate.name in front or candidate.name == chosen else "none", alpha=0.85,
        )  # fmt: skip
        if front and candidate.name not in front and candidate.name not in (chosen, "teacher"):
            continue
        label = f"{candidate.name}\n{candidate.size_bytes / 1024:.1f} KiB, p99 {candidate.latency_ms_p99:.2f} ms"
        point = (candidate.cpu_us_b1, candidate.metrics.get(name, float("nan")))
        below = place % 2  # neighbours would write over each other
        axes.annotate(label, point, textcoords="offset points", xytext=(8, -30 if below else 14), fontsize=7, color=INK)
    axes.margins(0.25)
    axes.set_xscale("log")
    axes.set(title="Candidates: accuracy against CPU time and size", xlabel="CPU microseconds, one row", ylabel=f"holdout {name}")
    return _png(figure)


def calibration_points(
    probabilities: NDArray[np.float32], *, labels: NDArray[np.int64], kind: str
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Mean probability said, share that came true, and share of rows, for each bin that holds rows.

    Binary: of the second class; otherwise of the most probable class (Guo et al., "On Calibration of Modern Neural Networks", 2017).
    """
    said = probabilities[:, 1] if kind == "binary" else probabilities.max(axis=1)
    true = labels == 1 if kind == "binary" else probabilities.argmax(axis=1) == labels
    place = np.minimum((said * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    counts = np.bincount(place, minlength=CALIBRATION_BINS)
    held = counts > 0
    means = [np.bincount(place, weights=values, minlength=CALIBRATION_BINS)[held] / counts[held] for values in (said, true)]
    return means[0], means[1], counts[held] / len(said)


def _holdout_labels(data: Path) -> NDArray[np.int64]:
    schema = read_record(FeatureSchema, (data / "schema.json").read_bytes())
    column = pq.read_table(data / "holdout", columns=[schema.target])[schema.target]
    return pc.index_in(pc.cast(column, pa.string()), value_set=pa.array(schema.classes)).to_numpy().astype(np.int64)


def _figure(panels: int) -> tuple[Any, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6 * panels + 1.2, 4.0), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, panels, squeeze=False)[0]
    for one in axes:
        one.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()
