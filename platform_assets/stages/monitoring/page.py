"""The drift report as one HTML page that needs nothing beside it: what moved, since when, how sure, what it costs, what was done.

A pure function of the report's records. Pictures are inline SVG in the page's own colours, light and dark.
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from platform_assets.specs.feed import FeedReport
from platform_assets.specs.records import DriftReport
from platform_assets.specs.service import NAMES
from platform_assets.stages.monitoring.light import show_light

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from platform_assets.specs.records import ColumnDrift, WindowPerformance, WindowReport

_SHOWN_COLUMNS = 16
_SHOWN_WINDOWS = 60
_SHOWN_ESTIMATES = 12
_CELL, _NAMES = 12, 190  # pixels
_STYLE = """
:root{color-scheme:light dark;--ink:#1c2733;--paper:#fbfaf7;--line:#ddd6c8;--soft:#6b7580;--moved:180,40,30;--mark:#2b7a78}
@media(prefers-color-scheme:dark){:root{--ink:#e6e2d8;--paper:#15191d;--line:#3a424a;--soft:#9aa4ad;--moved:240,110,90;--mark:#62c2bd}}
body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:62rem;padding:0 1rem;color:var(--ink);background:var(--paper)}
h1{font-size:1.4rem}h2{font-size:1.1rem;margin-top:2rem}table{border-collapse:collapse;width:100%}.wide{overflow-x:auto}
td,th{padding:.3rem .6rem;text-align:left;border-bottom:1px solid var(--line);vertical-align:top}td.n{text-align:right;white-space:nowrap}
.soft,svg text{color:var(--soft);fill:var(--soft)}svg text{font:10px system-ui,sans-serif}
.light{display:inline-block;width:.9rem;height:.9rem;border-radius:50%;vertical-align:middle}
.green{background:#2e8b57}.amber{background:#d9960f}.red{background:#c33}
"""
_LAYERS = {
    "column": "its values",
    "quality": "its quality",
    "joint": "how two go together",
    "answer": "the answers",
    "label": "the labels",
    "embedding": "how it is embedded",
}


@dataclass(frozen=True)
class Done:
    """One thing that the platform did or decided: when (the data's clock), what, why."""

    at: str
    what: str
    why: str


def draw_page(report: DriftReport, *, title: str, feed: FeedReport = FeedReport(), decisions: Sequence[Done] = ()) -> str:  # noqa: B008  (frozen)
    """Return the whole page."""
    light = show_light(report, feed)
    at = f" <span class=soft>({escape(light['at'])})</span>" if light["at"] else ""
    parts = [
        f"<h1>{escape(title)}</h1>",
        f"<p><span class='light {light['light']}'></span> {escape(light['sentence'])}{at}</p>",
        *_moved(report),
        *_heat(report.windows),
        *_performance(report.performance),
        *_estimate(report),
        *_service(report),
        *_feed(feed),
        *_done(decisions),
    ]
    return (
        f"<!doctype html><html lang=en><head><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<title>{escape(title)}</title>"
        f"<style>{_STYLE}</style></head><body>{''.join(parts)}</body></html>"
    )


def began(column: str, windows: Sequence[WindowReport]) -> WindowReport | None:
    """Return the window in which what moves at the end began to: the first of the unbroken run; None where it does not move."""
    first = None
    for window in reversed(windows):
        if not any(one.column == column and one.drifted for one in window.columns):
            break
        first = window
    return first


def _moved(report: DriftReport) -> Iterator[str]:
    yield "<h2>What moved</h2>"
    if not report.windows:
        yield "<p>No window is full yet.</p>"
        return
    newest = report.windows[-1]
    if not newest.moved:
        yield f"<p>Nothing, in the newest window (rows {newest.first_row:,} to {newest.last_row:,}, {escape(newest.first_event)} on).</p>"
    else:
        head = "".join(
            f"<th>{name}</th>" for name in ("what", "of it", "was", "is", "effect", "threshold", "p", "model leans on it", "since")
        )
        rows = "".join(_row(column, report.windows) for column in newest.moved)
        yield f"<div class=wide><table><tr>{head}</tr>{rows}</table></div>"
        if newest.harmless:
            yield "<p>The model leans on none of it: it is told, and asks for no retraining.</p>"
    if newest.declared_rate is not None:
        yield f"<p class=soft>Without a drift, {newest.declared_rate:.2%} of windows are expected to be called one.</p>"


def _row(column: ColumnDrift, windows: Sequence[WindowReport]) -> str:
    first = began(column.column, windows)
    since = f"window {first.window}, {first.first_event}".removesuffix(", ") if first else ""
    cells = (column.column, _LAYERS[column.layer], column.was, column.now)
    figures = (f"{column.effect:.3f}", f"{column.threshold:.3f}", f"{column.p_value:.1e}", f"{column.importance:.0%}")
    return (
        f"<tr>{''.join(f'<td>{escape(text)}</td>' for text in cells)}"
        f"{''.join(f'<td class=n>{text}</td>' for text in figures)}<td>{escape(since)}</td></tr>"
    )


def _heat(windows: Sequence[WindowReport]) -> Iterator[str]:
    """Windows across, columns down, the strongest first; the darker, the further above its threshold; a dot where it counts as moved."""
    shown = windows[-_SHOWN_WINDOWS:]
    strongest: dict[str, float] = {}
    for window in shown:
        for column in window.columns:
            strongest[column.column] = max(strongest.get(column.column, 0.0), _ratio(column))
    names = sorted(strongest, key=lambda name: -strongest[name])[:_SHOWN_COLUMNS]
    if len(shown) < 2 or not names:  # noqa: PLR2004  (one window is the table above)
        return
    yield f"<h2>Since when</h2><p class=soft>Windows {shown[0].window} to {shown[-1].window}; darker is further above its threshold.</p>"
    width, height = _NAMES + _CELL * len(shown), _CELL * len(names)
    yield f"<div class=wide><svg width={width} height={height} role=img aria-label='effect over threshold by window and column'>"
    for down, name in enumerate(names):
        yield f"<text x=0 y={down * _CELL + 10}>{escape(name[:34])}</text>"
        for across, window in enumerate(shown):
            cell = next((one for one in window.columns if one.column == name), None)
            if cell is None:
                continue
            x, y = _NAMES + across * _CELL, down * _CELL
            told = f"<title>window {window.window}: {cell.effect:.3f} of {cell.threshold:.3f}</title>"
            colour = f"rgba(var(--moved),{min(_ratio(cell) / 2, 1):.2f})"
            yield f"<rect x={x} y={y} width={_CELL - 1} height={_CELL - 1} style='fill:{colour}'>{told}</rect>"
            if cell.drifted:
                yield f"<circle cx={x + 5.5} cy={y + 5.5} r=2 style='fill:var(--ink)'></circle>"
    yield "</svg></div>"


def _performance(windows: Sequence[WindowPerformance]) -> Iterator[str]:
    yield "<h2>What it costs the model</h2>"
    known = [(window.window, window.value, window.promised) for window in windows if window.value is not None]
    if not known:
        yield "<p>No label has come yet: nobody knows.</p>"
        return
    newest = next((window for window in reversed(windows) if window.settled), None)
    yield f"<p>{escape(newest.sentence)}.</p>" if newest else "<p class=soft>Too few labels have come to settle any window.</p>"
    low = min(min(value, promised) for _, value, promised in known)
    high = max(max(value, promised) for _, value, promised in known)
    spread, first, last = (high - low) or 1.0, known[0][0], known[-1][0]

    def place(window: int, value: float) -> str:
        return f"{40 + 560 * (window - first) / max(last - first, 1):.1f},{10 + 100 * (high - value) / spread:.1f}"

    measured = " ".join(place(window, value) for window, value, _ in known)
    promised = " ".join(place(window, promise) for window, _, promise in known)
    metric = escape(windows[0].metric)
    yield (
        f"<div class=wide><svg width=620 height=135 role=img aria-label='{metric} by window'>"
        f"<text x=0 y=14>{high:.3f}</text><text x=0 y=114>{low:.3f}</text>"
        f"<polyline points='{promised}' fill=none stroke-dasharray='4 3' style='stroke:var(--soft)'></polyline>"
        f"<polyline points='{measured}' fill=none stroke-width=2 style='stroke:var(--mark)'></polyline>"
        f"<text x=40 y=130>{metric} by window, {first} to {last}; dashed: what the release promised</text></svg></div>"
    )
    shift = next((window.label_shift for window in reversed(windows) if window.label_shift is not None), None)
    if shift is not None and shift.drifted:
        yield f"<p>The labels themselves moved: {escape(shift.was)} before, {escape(shift.now)} now.</p>"


def _estimate(report: DriftReport) -> Iterator[str]:
    """The newest window's estimate, and how the last that labels have settled turned out: what an estimate was worth so far."""
    if not report.estimates:
        return
    yield f"<h2>What it is estimated at, without labels</h2><p>{escape(report.estimates[-1].sentence)}.</p>"
    found = {window.window: window.value for window in report.performance if window.settled and window.value is not None}
    known = [(one, found[one.window]) for one in report.estimates if one.window in found][-_SHOWN_ESTIMATES:]
    if known:
        rows = "".join(
            f"<tr><td>{one.window}</td><td class=n>{one.value:.3f}</td><td class=n>{one.low:.3f} to {one.high:.3f}</td>"
            f"<td class=n>{value:.3f}</td></tr>"
            for one, value in known
        )
        yield f"<div class=wide><table><tr><th>window</th><th>estimated</th><th>95 %</th><th>turned out</th></tr>{rows}</table></div>"


def _service(report: DriftReport) -> Iterator[str]:
    """The newest span of requests against what the release showed of itself."""
    if not report.service:
        return  # two tables that were held against each other were not served
    newest = report.service[-1]
    yield f"<h2>How it is served</h2><p>{escape(newest.sentence)}.</p>"
    if newest.findings:
        rows = "".join(
            f"<tr><td>{NAMES[one.what]}</td><td class=n>{escape(one.was)}</td><td class=n>{escape(one.now)}</td>"
            f"<td class=n>{one.effect:.3g}</td><td class=n>{one.threshold:.3g}</td><td>{one.severity}</td></tr>"
            for one in newest.findings
        )
        head = "".join(f"<th>{name}</th>" for name in ("what", "the release showed", "is", "effect", "threshold", "severity"))
        yield f"<div class=wide><table><tr>{head}</tr>{rows}</table></div><p class=soft>No retraining mends it: none is asked for.</p>"


def _feed(feed: FeedReport) -> Iterator[str]:
    if not feed.windows:
        return  # two tables that were held against each other have no feed
    yield "<h2>The feed</h2>"
    if not feed.faults:
        yield f"<p>Of {feed.windows} windows none was at fault.</p>"
        return
    yield f"<p>Of {feed.windows} windows {len(feed.faults)} were at fault; nothing is learnt from their rows.</p><ul>"
    yield from (f"<li>{escape(fault.sentence)} <span class=soft>({escape(fault.first_event)})</span></li>" for fault in feed.faults)
    yield "</ul>"


def _done(decisions: Sequence[Done]) -> Iterator[str]:
    yield "<h2>What the platform did</h2>"
    if not decisions:
        yield "<p>Nothing yet.</p>"
        return
    rows = "".join(f"<tr><td>{escape(one.at)}</td><td>{escape(one.what)}</td><td>{escape(one.why)}</td></tr>" for one in decisions)
    yield f"<div class=wide><table><tr><th>when</th><th>what</th><th>why</th></tr>{rows}</table></div>"


def _ratio(column: ColumnDrift) -> float:
    return column.effect / column.threshold if column.threshold > 0 else 0.0
