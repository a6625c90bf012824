"""The picture of a replay: score over time of never, always and the policy, and where it retrained, refreshed or refused to learn."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from collections.abc import Mapping

_MARKS = {"retrain": ("o", "#b3261e", "retrained"), "refresh": ("|", "#1f7a8c", "refreshed")}


def draw_replay(value: Mapping[str, Any]) -> bytes:
    """Draw what `falaj drift replay` found, as PNG."""
    rows = value["by_window"]
    places = [row["window"] for row in rows]
    figure = Figure(figsize=(11, 4), layout="constrained")
    axes = figure.add_subplot()
    for name, colour, label in (("never", "#c98b3b", "never"), ("always", "#9aa5ab", "always"), ("score", "#22313a", "policy")):
        axes.plot(places, [row[name] for row in rows], color=colour, linewidth=1.6 if name == "score" else 1.0, label=label)
    for how, (marker, colour, label) in _MARKS.items():
        chosen = [row for row in rows if row["decision"] == how]
        axes.plot([row["window"] for row in chosen], [row["score"] for row in chosen], marker, color=colour, label=label)
    for row in rows:
        if row["decision"] == "keep" and row["why"].startswith("data at fault"):
            axes.axvspan(row["window"] - 0.5, row["window"] + 0.5, color="#f2d0cd")
    if value["metric"] == "r2":
        axes.set_ylim(max(-1.0, min(row["score"] for row in rows) - 0.5), 1.0)
    axes.set_xlabel(f"window of {value['window_rows']} rows, the first {rows[0]['since']}, the last {rows[-1]['since']}")
    axes.set_ylabel(value["metric"])
    axes.legend(ncols=5, fontsize=8, loc="lower left")
    picture = io.BytesIO()
    FigureCanvasAgg(figure).print_figure(picture, dpi=110, format="png", metadata={"Software": None})
    return picture.getvalue()
