"""What people and Prometheus read of the server: metrics text and a small status page. Reads figures, changes nothing."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from platform_assets.stages.serving.figures import BOUNDS, Histogram

if TYPE_CHECKING:
    from platform_assets.stages.serving.traffic import Route

LIGHTS_FILE = "drift.json"
_LIGHTS = ("green", "amber", "red")
_SHOWN_BOUNDS = range(0, len(BOUNDS), 4)  # every fourth bound, a factor of 2.44 each: 17 buckets a version

_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:60rem;padding:0 1rem;color:#1c2733;background:#fbfaf7}
h1{font-size:1.4rem}h2{font-size:1.1rem;margin-top:2rem}table{border-collapse:collapse;width:100%}
td,th{padding:.35rem .6rem;text-align:right;border-bottom:1px solid #ddd6c8}td:first-child,th:first-child{text-align:left}
code{font-size:.9em}.fault{color:#a11}.bars{height:3rem;white-space:nowrap}
.light{display:inline-block;width:.8rem;height:.8rem;border-radius:50%;background:#bbb}
.green{background:#2e8b57}.amber{background:#d9960f}.red{background:#b22}
.bar{display:inline-block;width:.7rem;background:#2b7a78;vertical-align:bottom;margin-right:1px}
"""
_HEADINGS = "".join(f"<th>{name}</th>" for name in ("version", "role", "requests", "rows", "errors", "p50 ms", "p99 ms", "latency"))


def metrics(routes: Iterable[Route], server: Mapping[str, Any]) -> str:
    """Prometheus text format 0.0.4."""
    lines = ["# TYPE falaj_http_replies_total counter"]
    lines += [f'falaj_http_replies_total{{status="{status}"}} {count}' for status, count in sorted(server["replies"].items())]
    for name, (kind, value) in _server_metrics(server).items():
        lines += [f"# TYPE {name} {kind}", f"{name} {value}"]
    arms = [
        (route, role, arm) for route in routes for role, arm in (("live", route.live), ("challenger", route.challenger)) if arm is not None
    ]
    for field in ("requests", "rows", "errors"):
        lines.append(f"# TYPE falaj_{field} gauge")
        lines += [f"falaj_{field}{{{_labels(route, role, arm)}}} {getattr(arm.figures, field)}" for route, role, arm in arms]
    lines.append("# TYPE falaj_cpu_seconds gauge")
    lines += [
        f"falaj_cpu_seconds{{{_labels(route, role, arm)}}} {sum(pace.cpu_seconds for pace in arm.figures.paces):.6f}"
        for route, role, arm in arms
    ]
    lines.append("# TYPE falaj_latency_seconds histogram")
    for route, role, arm in arms:
        lines += _histogram("falaj_latency_seconds", _labels(route, role, arm), arm.figures.latency)
    for field in ("compared_rows", "disagreements", "skipped_requests"):
        lines.append(f"# TYPE falaj_shadow_{field} gauge")
        lines += [
            f'falaj_shadow_{field}{{model="{route.model}"}} {getattr(route.comparison, field)}' for route, role, _ in arms if role == "live"
        ]
    return "\n".join(lines) + "\n"


def _server_metrics(server: Mapping[str, Any]) -> dict[str, tuple[str, Any]]:
    return {
        "process_cpu_seconds_total": ("counter", f"{server['cpu_seconds']:.3f}"),
        "falaj_peak_resident_bytes": ("gauge", server["peak_resident_bytes"]),
        "falaj_loaded_model_bytes": ("gauge", server["loaded_bytes"]),
        "falaj_unloaded_models_total": ("counter", server["unloaded_models"]),
        "falaj_unforeseen_errors_total": ("counter", server["unforeseen_errors"]),
        "falaj_uptime_seconds": ("gauge", f"{server['uptime_seconds']:.1f}"),
        "falaj_connections": ("gauge", server["connections"]),
        "falaj_waiting_rows": ("gauge", server["waiting_rows"]),
        "falaj_log_waiting_rows": ("gauge", server["log_waiting_rows"]),
        "falaj_log_dropped_rows_total": ("counter", server["log_dropped_rows"]),
        "falaj_log_lost_rows_total": ("counter", server["log_lost_rows"]),
        "falaj_log_write_errors_total": ("counter", server["log_write_errors"]),
        "falaj_online_missed_rows_total": ("counter", server["online_missed_rows"]),
        "falaj_online_read_errors_total": ("counter", server["online_read_errors"]),
    }


def _labels(route: Route, role: str, arm: Any) -> str:
    return f'model="{route.model}",version="{arm.bundle.version}",role="{role}"'


def _histogram(name: str, labels: str, histogram: Histogram) -> list[str]:
    lines = [f'{name}_bucket{{{labels},le="{BOUNDS[at]:.6g}"}} {sum(histogram.counts[: at + 1])}' for at in _SHOWN_BOUNDS]
    total = sum(histogram.counts)
    return [
        *lines,
        f'{name}_bucket{{{labels},le="+Inf"}} {total}',
        f"{name}_sum{{{labels}}} {histogram.total:.6f}",
        f"{name}_count{{{labels}}} {total}",
    ]


def read_lights(serving: Path) -> dict[str, dict[str, str]]:
    """Drift lights that monitoring left in the serving folder, by model: `{"light": "green|amber|red", "sentence", "at"}`."""
    try:
        found = json.loads((serving / LIGHTS_FILE).read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def status_page(routes: Iterable[Route], server: Mapping[str, Any], *, lights: Mapping[str, Mapping[str, str]]) -> str:
    """One page for a person: versions, traffic, figures, latency as bars, and whether its data drift."""
    parts = [_model_section(route, lights.get(route.model)) for route in routes] or [
        "<p>No model is loaded yet: <code>falaj run</code> deploys the first release.</p>"
    ]
    facts = (
        f"up {server['uptime_seconds']:.0f} s, {server['connections']} connections, {server['waiting_rows']} rows waiting, "
        f"{server['log_waiting_rows']} rows to be logged, {server['log_dropped_rows']} not logged, {server['log_lost_rows']} lost by kills"
        f"{'; ' + server['log_fault'] if server['log_fault'] else ''}"
    )
    return (
        "<!doctype html><html lang=en><head><meta charset=utf-8><title>Falaj inference server</title><meta http-equiv=refresh content=5>"
        f"<style>{_STYLE}</style></head><body><h1>Falaj inference server</h1><p>{html.escape(facts)}</p>{''.join(parts)}"
        "<p><a href=/status>status as JSON</a>, <a href=/metrics>metrics</a>, <a href=/v2>protocol V2</a></p></body></html>"
    )


def _drift_light(light: Mapping[str, str] | None) -> str:
    if light is None or light.get("light") not in _LIGHTS:
        return "<p><span class=light></span> no drift report yet</p>"
    said = html.escape(f"{light.get('sentence', '')} ({light.get('at', 'no time given')})")
    return f"<p><span class='light {light['light']}'></span> {said}</p>"


def _model_section(route: Route, light: Mapping[str, str] | None) -> str:
    traffic = route.traffic
    rows = "".join(_arm_row(role, arm) for role, arm in (("live", route.live), (traffic.mode, route.challenger)) if arm is not None)
    compared = f"<p>Shadow: {route.comparison.compared_rows} rows compared, {route.comparison.disagreements} answered otherwise.</p>"
    fault = f"<p class=fault>{html.escape(route.fault)}</p>" if route.fault else ""
    split = f" ({traffic.percent} % to the challenger)" if traffic.mode == "canary" else ""
    after = compared if traffic.mode == "shadow" else ""
    return f"<h2>{html.escape(route.model)}{split}</h2>{fault}{_drift_light(light)}<table><tr>{_HEADINGS}</tr>{rows}</table>{after}"


def _arm_row(role: str, arm: Any) -> str:
    figures = arm.figures.record()
    counts = arm.figures.latency.counts
    highest = max(1, *counts)
    used = [at for at, count in enumerate(counts) if count]
    shown = counts[used[0] : used[-1] + 1] if used else []
    bars = "".join(f'<span class=bar style="height:{max(count / highest, 0.02):.0%}"></span>' for count in shown)
    return (
        f"<tr><td><code>{figures.version}</code></td><td>{role}</td><td>{figures.requests}</td><td>{figures.rows}</td><td>{figures.errors}</td>"
        f"<td>{figures.latency_ms_p50:.2f}</td><td>{figures.latency_ms_p99:.2f}</td><td><div class=bars>{bars}</div></td></tr>"
    )
