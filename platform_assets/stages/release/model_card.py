"""The model card, for people: what the model is for, what it was made of, its quality and cost. Text lives in the templates beside."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from platform_assets.specs.candidates import Candidate, Selection

_TEMPLATES = Path(__file__).parent
_WIDTH, _HEIGHT, _MARGIN = 640, 320, 48


def render_markdown(**card: Any) -> str:
    """Render the card as Markdown; takes the same values as `render_html`."""
    return _render("model_card.md.j2", card, escape=False)


def render_html(**card: Any) -> str:
    """Render the card as one self-contained page; values: model, dataset, selection, verdict, training, training_set, lineage, schema."""
    points = place_points(card["selection"], metric=card["model"].leading_metric)
    return _render("model_card.html.j2", {**card, "points": points, "width": _WIDTH, "height": _HEIGHT}, escape=True)


def place_points(selection: Selection, *, metric: str) -> list[dict[str, Any]]:
    """Place candidates in the frontier picture: CPU a row across (logarithmic), metric up, area by size; pixels from the top left."""
    candidates = selection.candidates or (selection.chosen,)
    costs = [math.log10(max(one.cpu_us_b1, 0.1)) for one in candidates]
    goods = [one.metrics[metric] for one in candidates]
    largest = max(one.size_bytes for one in candidates) or 1
    across = _scale(costs, _MARGIN, _WIDTH - 2 * _MARGIN)
    up = _scale(goods, _HEIGHT - _MARGIN, _MARGIN)
    return [
        {
            "name": one.name,
            "x": round(x, 1),
            "y": round(y, 1),
            "r": round(4 + 10 * math.sqrt(one.size_bytes / largest), 1),
            "chosen": one.name == selection.chosen.name,
            "front": one.name in selection.front,
            "label": _label(one, metric),
            "text": one.name if one.name in (*selection.front, selection.chosen.name, "teacher") else "",
        }
        for one, x, y in zip(candidates, across, up, strict=True)
    ]


def _label(one: Candidate, metric: str) -> str:
    return f"{one.name}: {metric} {one.metrics[metric]:.4f}, {one.cpu_us_b1:.0f} us a row, {one.size_bytes / 1024:.1f} KiB"


def _scale(values: Sequence[float], start: float, end: float) -> list[float]:
    low, high = min(values), max(values)
    return [start + (end - start) * ((value - low) / (high - low) if high > low else 0.5) for value in values]


def _render(template: str, values: dict[str, Any], *, escape: bool) -> str:
    import jinja2

    # Markdown is not HTML: escaped it would read `&gt;= 0.85`.
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=escape,  # noqa: S701
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(**values)
