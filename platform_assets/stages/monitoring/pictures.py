"""Pictures of drift and performance as SVG, for wherever an image is shown. The figures come from the reports.

Written, not plotted: two pictures a model and minute would cost a third of judging it. The page (page.py) has its own, in its own colours.
"""

from __future__ import annotations

from collections import defaultdict
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from platform_assets.specs.records import WindowPerformance, WindowReport

_CELL, _NAMES, _HEAD = 14, 170, 8  # pixels
_WINDOWS, _COLUMNS, _LETTERS = 120, 40, 28  # the most that is shown: the newest, the most important, the first
_SHADES = ("#f6f1e4", "#fde2a7", "#fdbe6f", "#f98e52", "#e5593b", "#b2182b")  # effect over threshold, from nil to twice and above
_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 700, 260, 60, 690, 12, 215
_TICKS = 12


def draw_drift(reports: Sequence[WindowReport]) -> str:
    """Heat map: windows across, columns down (most important first), effect over threshold as colour, a dot where a column drifted."""
    shown = reports[-_WINDOWS:]
    names = [one.column for one in sorted(shown[-1].columns, key=lambda one: -one.importance)][:_COLUMNS] if shown else []
    rows = {name: place for place, name in enumerate(names)}
    cells: dict[int, list[str]] = defaultdict(list)  # a path a shade: a tenth of the bytes of a rectangle a cell
    dots: list[str] = []
    for across, window in enumerate(shown):
        for one in window.columns:
            if one.column not in rows:
                continue
            x, y = _NAMES + across * _CELL, _HEAD + rows[one.column] * _CELL
            ratio = one.effect / one.threshold if one.threshold > 0 else 0.0
            cells[min(round(ratio / 2 * (len(_SHADES) - 1)), len(_SHADES) - 1)].append(f"M{x} {y}h{_CELL - 1}v{_CELL - 1}h{1 - _CELL}z")
            if one.drifted:
                dots.append(f"M{x + 4} {y + 6.5}a2.5 2.5 0 1 0 5 0a2.5 2.5 0 1 0 -5 0z")
    bottom = _HEAD + len(names) * _CELL
    parts = [f"<path fill='{_SHADES[shade]}' d='{''.join(paths)}'/>" for shade, paths in sorted(cells.items())]
    parts += [f"<path d='{''.join(dots)}'/>"] if dots else []
    parts += [_text(0, _HEAD + place * _CELL + 10, name[:_LETTERS]) for name, place in rows.items()]
    for across, window in enumerate(shown):
        if across % max(len(shown) // _TICKS, 1) == 0:
            parts.append(_text(_NAMES + across * _CELL, bottom + 12, str(window.window)))
    parts.append(_text(_NAMES, bottom + 27, "window of the production log"))
    for place, shade in enumerate(_SHADES):
        parts.append(f"<path fill='{shade}' d='M{_NAMES + place * _CELL} {bottom + 35}h{_CELL}v9h{-_CELL}z'/>")
    parts.append(_text(_NAMES + len(_SHADES) * _CELL + 6, bottom + 44, "effect / threshold, from 0 to 2 and more"))
    return _picture(parts, width=max(_NAMES + len(shown) * _CELL, 480) + 10, height=bottom + 52)


def draw_performance(windows: Sequence[WindowPerformance], *, decisions: Mapping[int, str]) -> str:
    """Leading metric by window against what was promised; `decisions` marks windows with a word, e.g. {4: "retraining asked"}."""
    known = [(one.window, one.value) for one in windows if one.value is not None]
    return _picture(_curves(windows, known, decisions) if windows else [_text(_LEFT, 20, "no window yet")], width=_WIDTH, height=_HEIGHT)


def _curves(windows: Sequence[WindowPerformance], known: Sequence[tuple[int, float]], decisions: Mapping[int, str]) -> Iterator[str]:
    values = [*(value for _, value in known), *(one.promised for one in windows)]
    low, high, first, last = min(values), max(values), windows[0].window, windows[-1].window

    def place(window: int, value: float) -> str:
        down = (high - value) / (high - low) if high > low else 0.5
        return f"{across(window):.1f},{_TOP + (_BOTTOM - _TOP) * down:.1f}"

    def across(window: int) -> float:
        return _LEFT + (_RIGHT - _LEFT) * ((window - first) / (last - first) if last > first else 0.5)

    yield f"<path fill='none' stroke='#bbb' d='M{_LEFT} {_TOP}V{_BOTTOM}H{_RIGHT}'/>"
    promised, measured = (" ".join(place(*one) for one in line) for line in ([(one.window, one.promised) for one in windows], known))
    yield f"<polyline fill='none' stroke='#888' stroke-dasharray='5 4' points='{promised}'/>"
    yield f"<polyline fill='none' stroke='#2b7a78' stroke-width='2' points='{measured}'/>"
    for point in known:
        x, y = place(*point).split(",")
        yield f"<circle cx='{x}' cy='{y}' r='2.5' fill='#2b7a78'/>"
    for window, word in decisions.items():
        yield f"<path stroke='#c33' d='M{across(window):.1f} {_TOP}V{_BOTTOM}'/>" + _text(round(across(window)) + 3, _TOP + 10, word)
    yield _text(0, _TOP + 5, f"{high:.4g}") + _text(0, _BOTTOM, f"{low:.4g}")
    yield _text(_LEFT, _BOTTOM + 16, str(first)) + (_text(_RIGHT - 24, _BOTTOM + 16, str(last)) if last > first else "")
    yield _text(_LEFT, _BOTTOM + 34, f"{windows[0].metric} by window of the production log; dashed: what the release promised")


def _text(x: int, y: int, words: str) -> str:
    return f"<text x='{x}' y='{y}'>{escape(words)}</text>"


def _picture(parts: Sequence[str] | Iterator[str], *, width: int, height: int) -> str:
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' width='{width}' height='{height}' viewBox='0 0 {width} {height}' "
        f"font-family='system-ui,sans-serif' font-size='10'><path fill='#fff' d='M0 0h{width}v{height}H0z'/>{''.join(parts)}</svg>"
    )
