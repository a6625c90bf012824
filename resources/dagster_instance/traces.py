"""Where runs stand in traces: a span for each launch and each run, told from one process to the next by a tag of the run."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from platform_assets.logs import bound, start_logging
from platform_assets.tracing import span, start_tracing, traceparent
from resources.settings import read_settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dagster import DagsterInstance, DagsterRun

TRACE_TAG = "falaj/traceparent"
_SENSOR, _SCHEDULE, _TICK = "dagster/sensor_name", "dagster/schedule_name", "dagster/tick"


@contextmanager
def launching(instance: DagsterInstance, run: DagsterRun) -> Iterator[None]:
    """Be the launch of a run, within the trace of whoever asked for it; the run is told where it belongs."""
    start_tracing("daemon", read_settings().traces.endpoint)
    tags = run.tags
    with span(
        f"launch {run.job_name}", parent=tags.get(TRACE_TAG), run=run.run_id, job=run.job_name, sensor=tags.get(_SENSOR),
        schedule=tags.get(_SCHEDULE), tick=tags.get(_TICK),
    ):  # fmt: skip
        where = traceparent()
        if where is not None:
            instance.add_run_tags(run.run_id, {TRACE_TAG: where})
        yield


@contextmanager
def running(run: DagsterRun) -> Iterator[None]:
    """Be a run in a process of its own."""
    settings = read_settings()
    start_logging("steps", settings.log_form)
    start_tracing("steps", settings.traces.endpoint)
    with bound(run=run.run_id, job=run.job_name), span(
        f"run {run.job_name}", parent=run.tags.get(TRACE_TAG), run=run.run_id, job=run.job_name
    ):  # fmt: skip
        yield
