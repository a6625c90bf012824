"""Pictures of drift and performance, as PNG bytes. Only loaded where a picture is drawn; the figures come from the reports."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from platform_assets.specs.records import ColumnDrift, WindowPerformance, WindowReport

_DPI = 110


def draw_drift(reports: Sequence[WindowReport]) -> bytes:
    """Heat map: windows across, columns down (most important first), effect over threshold as colour, a dot where a column drifted."""
    names = [column.column for column in sorted(reports[-1].columns, key=lambda column: -column.importance)] if reports else []
    found = [{column.column: column for column in report.columns} for report in reports]
    ratio = np.array([[_ratio(window.get(name)) for window in found] for name in names]).reshape(len(names), len(reports))
    figure = Figure(figsize=(max(5.0, 0.28 * len(reports) + 3), max(2.5, 0.26 * len(names) + 1)), layout="constrained")
    axes = figure.add_subplot()
    mesh = axes.imshow(ratio, aspect="auto", cmap="YlOrRd", vmin=0, vmax=2, interpolation="nearest")
    for across, window in enumerate(found):
        for down, name in enumerate(names):
            if name in window and window[name].drifted:
                axes.plot(across, down, "o", color="black", markersize=3)
    axes.set_yticks(range(len(names)), names, fontsize=7)
    axes.set_xticks(range(len(reports)), [str(report.window) for report in reports], fontsize=7)
    axes.set_xlabel("window of the production log")
    figure.colorbar(mesh, ax=axes, label="effect / threshold")
    return _png(figure)


def draw_performance(windows: Sequence[WindowPerformance], *, decisions: Mapping[int, str]) -> bytes:
    """Leading metric by window against what was promised; `decisions` marks windows with a word, e.g. {4: "retraining asked"}."""
    known = [(window, window.value) for window in windows if window.value is not None]
    figure = Figure(figsize=(7, 3), layout="constrained")
    axes = figure.add_subplot()
    axes.plot([w.window for w, _ in known], [value for _, value in known], "o-", markersize=3, label="measured")
    axes.step([w.window for w in windows], [w.promised for w in windows], where="mid", linestyle="--", color="grey", label="promised")
    for place, word in decisions.items():
        axes.axvline(place, color="tab:red", linewidth=1)
        axes.annotate(word, (place, 1.0), xycoords=("data", "axes fraction"), rotation=90, va="top", ha="right", fontsize=7)
    axes.set_xlabel("window of the production log")
    axes.set_ylabel(windows[0].metric if windows else "")
    axes.legend(fontsize=7)
    return _png(figure)


def _ratio(column: ColumnDrift | None) -> float:
    return float("nan") if column is None else column.effect / column.threshold


def _png(figure: Figure) -> bytes:
    picture = io.BytesIO()
    FigureCanvasAgg(figure).print_figure(picture, dpi=_DPI, format="png", metadata={"Software": None})
    return picture.getvalue()
