"""A drift report's newest figures in Prometheus' text format, as node_exporter's textfile collector takes them (no timestamps)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from platform_assets.stages.monitoring.light import show_light

if TYPE_CHECKING:
    from collections.abc import Iterator

    from platform_assets.specs.feed import FeedReport
    from platform_assets.specs.records import DriftReport

# Names and units are a promise to dashboards and alerting rules: add, never rename.
HELP = {
    "falaj_drift_light": "0 green, 1 amber, 2 red.",
    "falaj_drift_windows": "Windows of the production log that were judged.",
    "falaj_drift_drifted_windows": "Of these, windows in which something moved that the model leans on.",
    "falaj_drift_faulty_windows": "Of these, windows whose feed was at fault.",
    "falaj_drift_effect_ratio": "Effect of a column in the newest window over its threshold.",
    "falaj_drift_metric": "Leading metric of the newest window whose labels are in.",
    "falaj_drift_metric_promised": "What the release promised of it.",
    "falaj_drift_metric_estimated": "What the newest window is estimated at without labels; a changed concept cannot show in it.",
    "falaj_drift_metric_estimated_low": "Lower end of its 95 % interval.",
    "falaj_drift_metric_estimated_high": "Upper end of it.",
    "falaj_service_effect_ratio": "p99, errors and CPU of the newest requests: effect against the release over its threshold.",
    "falaj_service_regressed": "1 where that is a regression.",
}
_LIGHTS = ("green", "amber", "red")


def render_drift(report: DriftReport, feed: FeedReport, *, model: str) -> str:
    """Write gauges of one model."""
    by_name: dict[str, list[str]] = {}
    for name, more, value in _rows(report, feed):
        pairs = ",".join(f'{key}="{_escape(text)}"' for key, text in {"model": model, **more}.items())
        by_name.setdefault(name, []).append(f"{name}{{{pairs}}} {float(value)!r}")
    return "".join(f"# HELP {name} {HELP[name]}\n# TYPE {name} gauge\n" + "\n".join(lines) + "\n" for name, lines in by_name.items())


def _rows(report: DriftReport, feed: FeedReport) -> Iterator[tuple[str, dict[str, str], float]]:
    yield "falaj_drift_light", {}, _LIGHTS.index(show_light(report, feed)["light"])
    yield "falaj_drift_windows", {}, len(report.windows)
    yield "falaj_drift_drifted_windows", {}, sum(window.drifted for window in report.windows)
    yield "falaj_drift_faulty_windows", {}, len(feed.faults)
    for column in report.windows[-1].columns if report.windows else ():
        if column.threshold > 0:
            yield "falaj_drift_effect_ratio", {"column": column.column}, column.effect / column.threshold
    settled = [window for window in report.performance if window.settled and window.value is not None]
    if settled:
        yield "falaj_drift_metric", {"metric": settled[-1].metric}, settled[-1].value or 0.0
        yield "falaj_drift_metric_promised", {"metric": settled[-1].metric}, settled[-1].promised
    if report.estimates and report.windows and report.estimates[-1].window == report.windows[-1].window:
        newest = report.estimates[-1]
        yield "falaj_drift_metric_estimated", {"metric": newest.metric}, newest.value
        yield "falaj_drift_metric_estimated_low", {"metric": newest.metric}, newest.low
        yield "falaj_drift_metric_estimated_high", {"metric": newest.metric}, newest.high
    for one in report.service[-1].findings if report.service else ():
        yield "falaj_service_effect_ratio", {"what": one.what, "version": report.service[-1].version}, one.effect / one.threshold
        yield "falaj_service_regressed", {"what": one.what, "version": report.service[-1].version}, one.regressed


def _escape(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
