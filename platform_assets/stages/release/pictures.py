"""A rollout's looks for people: its evidence as a picture, and the last look of each stage as a table."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from platform_assets.specs.looks import LookLog

_COLOURS = {"errors": "#a23b3b", "slow": "#c98b3b", "disagreement": "#1f7a8c", "worse": "#6b4c9a"}
_INK, _FLOOR = "#22313a", -4.0  # a flawless release's evidence against it falls without end


def draw_looks(log: LookLog) -> bytes:
    """Draw evidence against the challenger and in its favour over the looks, as PNG; the dashed lines end the rollout or let it pass."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.4, 4.0), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    for axes, side, passes, title in (
        (left, "against", log.against_passes, "Against it (dashed: roll back)"),
        (right, "in_favour", log.in_favour_passes, "In its favour, so far (dashed: proven)"),
    ):
        _draw_side(axes, log, side=side)
        axes.axhline(passes, color=_INK, linestyle="--", linewidth=1)
        axes.set(title=title, xlabel="seconds", ylabel="log10 of the e-value")
        axes.spines[["top", "right"]].set_visible(False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()


def _draw_side(axes: Any, log: LookLog, *, side: str) -> None:
    for name, colour in _COLOURS.items():
        drawn = [(look.seconds, max(getattr(look, side)[name], _FLOOR), look.stage) for look in log.looks if name in getattr(look, side)]
        for stage in dict.fromkeys(point[2] for point in drawn):
            points = [point for point in drawn if point[2] == stage]
            label = name if stage == drawn[0][2] else None
            axes.plot([p[0] for p in points], [p[1] for p in points], color=colour, marker=".", markersize=3, linewidth=1, label=label)
    began = {look.stage: look.seconds for look in reversed(log.looks)}
    for stage, seconds in began.items():
        axes.axvline(seconds, color="#d5d9dc", linewidth=0.8, zorder=0)
        axes.annotate(stage, (seconds, 1.0), xycoords=("data", "axes fraction"), fontsize=7, color=_INK, rotation=90, va="top", ha="right")
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, fontsize=8, loc="lower left")


def write_looks_table(log: LookLog) -> str:
    """Write the last look of each stage in Markdown; evidence as decimal logarithms beside what it has to pass."""
    head = (
        f"| stage | criterion | found | at most | against (rolls back at {log.against_passes:.2f}) | "
        f"in favour (proves at {log.in_favour_passes:.2f}) |\n|---|---|---|---|---|---|"
    )
    lines = [head]
    for look in {look.stage: look for look in log.looks}.values():
        for name, tally in look.tallies.items():
            sides = [f"{side[name]:.2f}" if name in side else "" for side in (look.against, look.in_favour)]
            lines.append(f"| {look.stage} | {name} | {tally.hits} of {tally.trials} | {log.limits[name]:.2%} | {sides[0]} | {sides[1]} |")
    lines.append(
        f"\n{len(log.looks)} looks; false rollback at most {log.false_rollback:.2%}, false promotion at most {log.false_promotion:.2%}."
    )
    return "\n".join(lines)
