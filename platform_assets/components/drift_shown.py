"""Where a drift report is shown: metadata, a page beside the main job's reports, gauges, the light on the server's status page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import dagster as dg

from platform_assets import keys
from platform_assets.components.retraining_history import past_retrainings
from platform_assets.components.step import Step, picture
from platform_assets.specs.feed import FeedReport
from platform_assets.specs.records import DriftReport, RetrainingVerdict, RolloutVerdict

if TYPE_CHECKING:
    from pathlib import Path

    from platform_assets.specs.model import ModelSpec
    from platform_assets.stages.monitoring.page import Done


def show_drift(model: ModelSpec, step: Step, report: DriftReport, feed: FeedReport) -> dict[str, Any]:
    """Show a report everywhere, and return its metadata; what cannot be shown beside the asset never fails the step."""
    from platform_assets.stages.monitoring.exposition import render_drift
    from platform_assets.stages.monitoring.light import show_light
    from platform_assets.stages.monitoring.pictures import draw_drift, draw_performance
    from resources.lights import set_light

    light = show_light(report, feed)
    step.parts.live_metrics.show(f"drift_{model.name}", render_drift(report, feed, model=model.name))
    try:
        set_light(step.parts.settings.home.serving, model.name, light)
        page = _write_page(model, step, report, feed)
    except OSError as error:  # a full disk costs a page, not the report
        step.context.log.warning("the drift page and light of %s were not written: %s", model.name, error)
        page = None
    newest = report.windows[-1] if report.windows else None
    metadata: dict[str, Any] = {
        "windows": len(report.windows), "evidence": light["sentence"], "light": light["light"],
        "first_drifted_row": str(report.first_drifted_row), "faulty_windows": len(feed.faults),
        **({"page": dg.MetadataValue.path(str(page))} if page else {}),
    }  # fmt: skip
    if newest is not None:
        metadata["drift"] = picture(draw_drift(report.windows))
        shown = ("effect", "threshold", "p_value", "importance")
        metadata["moved"] = dg.MetadataValue.json([
            {"column": one.column, **{name: round(getattr(one, name), 4) for name in shown}} for one in newest.moved
        ])  # fmt: skip
    if report.service:
        metadata["service"] = report.service[-1].sentence
    if report.estimates:
        metadata["estimate"] = report.estimates[-1].sentence
    if any(window.value is not None for window in report.performance):
        metadata["performance"] = picture(draw_performance(report.performance, decisions={}))
    return metadata


def _write_page(model: ModelSpec, step: Step, report: DriftReport, feed: FeedReport) -> Path:
    from platform_assets.stages.monitoring.page import draw_page
    from resources.home import write_atomically

    path = step.parts.settings.home.reports / f"drift-{model.name}.html"
    page = draw_page(report, title=f"Drift of {model.name}", feed=feed, decisions=_done(model, step))
    write_atomically(path, page.encode())
    return path


def _done(model: ModelSpec, step: Step) -> list[Done]:
    """What was done so far, newest first: retrainings with their outcomes, the last verdict, the last rollout."""
    from platform_assets.stages.monitoring.page import Done

    done = []
    verdict = step.find(keys.model_key(model.name, "retraining_verdict"), RetrainingVerdict)
    if verdict is not None:
        done.append(Done(verdict.decided_at, "asked for a retraining" if verdict.asked else "asked for none", verdict.sentence))
    rollout = step.find(keys.model_key(model.name, "rollout_verdict"), RolloutVerdict)
    if rollout is not None:
        done.append(Done("", f"rolled out {rollout.version}: {rollout.outcome.replace('_', ' ')}", rollout.sentence))
    for past in reversed(past_retrainings(step.parts, model.name)):
        won = "" if past.gain is None else f", {past.gain:+.1%} of the loss won"
        done.append(
            Done(f"{past.decided_at:%Y-%m-%d %H:%M}", f"retraining, asked for by {past.trigger}", past.outcome.replace("_", " ") + won)
        )
    return done
