"""A home's own figures for Prometheus: a sensor that counts and shows them. What they are called is stages.telemetry.home_page's."""

from __future__ import annotations

import json
import time
from datetime import datetime
from typing import TYPE_CHECKING

import dagster as dg

from platform_assets import keys
from platform_assets.specs.spending import Month
from platform_assets.stages.telemetry.home_page import HomeFigures, render_home
from resources.dagster_instance.gate import HELD, HOLD_TAG, MODEL_TAG

if TYPE_CHECKING:
    from collections.abc import Mapping

    from resources.parts import Parts

FILE = "falaj_home"
_TICK_SECONDS = 30
_STATES = {
    dg.DagsterRunStatus.QUEUED: "queued", dg.DagsterRunStatus.NOT_STARTED: "starting", dg.DagsterRunStatus.STARTING: "starting",
    dg.DagsterRunStatus.STARTED: "running", dg.DagsterRunStatus.CANCELING: "ending",
}  # fmt: skip
_MOST_RUNS, _MOST_ENTRIES = 10_000, 1000


def build_figures_sensor(parts: Parts) -> dg.SensorDefinition:
    """Build the sensor that keeps the gauges of this home current."""

    @dg.sensor(
        name=keys.FIGURES_SENSOR,
        description="Queue, deadlines, spending and audit log as gauges for Prometheus. It launches nothing.",
        minimum_interval_seconds=_TICK_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
    )
    def figures_due(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        """Count and show; the cursor is the newest entry of the audit log that was seen, so that each is read once."""
        seen = json.loads(context.cursor) if context.cursor else (0, None)
        figures = count(parts, context.instance, now=time.time(), seen=(seen[0], seen[1]))
        context.update_cursor(json.dumps([figures.audit_entries, figures.audit_newest]))
        parts.live_metrics.show(FILE, render_home(figures))
        return dg.SkipReason(f"Shown: {sum(many for many, _ in figures.runs.values())} runs have not ended.")

    return figures_due


def count(parts: Parts, instance: dg.DagsterInstance, *, now: float, seen: tuple[int, float | None] = (0, None)) -> HomeFigures:
    """Count what stands in a home at `now` (epoch seconds); `seen` are number and time of the newest audit entry known before."""
    from resources.events import GROUP

    catalogue, spending = parts.catalogue, parts.ledger.spending(Month.of(now))
    deadlines = {name: model.sla.deadline.total_seconds() for name, model in catalogue.models.items() if model.sla.deadline}
    budgets = {name: tenant.budget.aed_per_month for name, tenant in catalogue.compute.tenants.items() if tenant.budget}
    while new := parts.audit.entries(after=seen[0], most=_MOST_ENTRIES):
        seen = new[-1]["seq"], datetime.fromisoformat(new[-1]["at"]).timestamp()
    return HomeFigures(
        at=now, runs=_count_runs(instance, now=now), deadlines=deadlines,
        events_waiting=parts.inbox.waiting(GROUP), events_dead=len(parts.inbox.dead(GROUP)),
        spent=spending.spent, promised=spending.promised, budgets=budgets, audit_entries=seen[0], audit_newest=seen[1],
    )  # fmt: skip


def _count_runs(instance: dg.DagsterInstance, *, now: float) -> Mapping[tuple[str, str], tuple[int, float]]:
    found: dict[tuple[str, str], tuple[int, float]] = {}
    for record in instance.get_run_records(dg.RunsFilter(statuses=list(_STATES)), limit=_MOST_RUNS):
        run = record.dagster_run
        state = "held" if run.tags.get(HOLD_TAG) == HELD else _STATES[run.status]
        model = run.tags.get(MODEL_TAG, "")
        key = "" if "," in model else model, state  # a run that models share is no single one's
        many, oldest = found.get(key, (0, 0.0))
        found[key] = many + 1, max(oldest, now - record.create_timestamp.timestamp())
    return found
