"""Dagster's queue with admission before it: a run is admitted, held in the queue, or cancelled, each with one sentence."""

from __future__ import annotations

import sqlite3
from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import unquote

from dagster import DagsterRun, DagsterRunStatus
from dagster._core.run_coordinator.queued_run_coordinator import QueuedRunCoordinator, RunQueueConfig

from platform_assets.errors import FalajError, SpecError
from platform_assets.specs.catalogue import Catalogue, read_catalogue
from platform_assets.specs.spending import Verdict
from resources.dagster_instance import gate
from resources.dagster_instance.traces import launching
from resources.dagster_instance.warm_launcher import PROCESS_TAG
from resources.home import read_sources
from resources.parts import Parts, build_parts
from resources.settings import Settings, read_settings

if TYPE_CHECKING:
    from pathlib import Path

    from dagster._core.run_coordinator.base import SubmitRunContext

_NONE_HELD = {"key": gate.HOLD_TAG, "value": gate.HELD, "limit": 0}


class AdmissionCoordinator(QueuedRunCoordinator):
    """Named as `run_coordinator` in infra/dagster. That the queue lets no held run go is its own, not the file's, to say.

    The UI, backfills, declarative automation, schedules and sensors all submit through here. Raising would leave a backfill requested for
    ever, so what cannot be judged is held.
    """

    def get_run_queue_config(self) -> RunQueueConfig:
        """Return the declared limits, and that of held runs: none may start."""
        declared = super().get_run_queue_config()
        return declared._replace(tag_concurrency_limits=[*declared.tag_concurrency_limits, _NONE_HELD])

    def submit_run(self, context: SubmitRunContext) -> DagsterRun:
        """Ask admission, write its verdict down, and queue the run unless it is refused."""
        run = context.dagster_run
        if run.status != DagsterRunStatus.NOT_STARTED:
            return super().submit_run(context)  # submitted before: a no-op
        asker = context.get_request_header(gate.USER_HEADER)
        if asker is not None:  # over tags of these names that the launcher may have written
            self._instance.add_run_tags(run.run_id, {gate.ACTOR_TAG: unquote(asker), gate.REQUESTER_TAG: unquote(asker)})
            run = self._instance.get_run_by_id(run.run_id) or run
        tags = {name: value for name, value in gate.TRIED_AGAIN.items() if name not in run.tags}
        if PROCESS_TAG in run.tags:  # of the run that this one goes on with
            tags[PROCESS_TAG] = ""
        self._instance.add_run_tags(run.run_id, tags)
        with launching(self._instance, run):
            verdict = self._judge(run)
        if verdict.answer == "refuse":
            self._instance.report_run_canceled(run, message=verdict.sentence)
        else:
            queued = super().submit_run(context)
            self._instance.report_engine_event(verdict.sentence, queued)
        return self._instance.get_run_by_id(run.run_id) or run

    def _judge(self, run: DagsterRun) -> Verdict:
        instance = self._instance
        instance.add_run_tags(run.run_id, {gate.HOLD_TAG: gate.HELD})  # until there is a verdict, whatever happens to this process
        try:
            parts = read_parts(read_settings())
            admission, steps = gate.admission_of(parts), gate.planned_steps(instance, run)
            tags = gate.binding_tags(run, steps, admission=admission)
            verdict = admission.ask(run.run_id, gate.planned_keys(steps), still_going=gate.still_going(instance))
            if verdict.answer != "admit" or verdict.share < 1:
                gate.write_down(parts, run, verdict, actor=gate.launcher_of(run.tags), action=verdict.answer)
        except (FalajError, OSError, sqlite3.Error) as error:
            return Verdict("hold", f"Held: it could not be judged; it is tried again every minute. {error}")
        instance.add_run_tags(run.run_id, {**tags, **gate.verdict_tags(verdict)})
        return verdict


def read_parts(settings: Settings) -> Parts:
    """Bind a home's parts to its declarations as they stand now: a raised budget holds without a restart."""
    files = sorted(settings.defs_root.rglob("defs.yaml")) if settings.defs_root.is_dir() else []
    catalogue = _read(settings.defs_root, tuple((str(path), path.stat().st_mtime_ns) for path in files))
    return build_parts(settings, catalogue.provide(read_sources(settings.home)))


@lru_cache(maxsize=2)
def _read(root: Path, stamps: tuple[tuple[str, int], ...]) -> Catalogue:
    del stamps  # they only tell one state of the files from the next
    catalogue, faults = read_catalogue(root)
    if faults:
        raise SpecError(faults)
    return catalogue
