"""Running Dagster jobs from the main job: in this process, on the real instance; and waiting for runs that sensors launched."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import dagster as dg
from dagster._utils.error import SerializableErrorInfo  # it has no public name

from platform_assets.errors import AdmissionError, StageError
from platform_assets.main_job.progress import Bars
from platform_assets.tracing import span, start_tracing, traceparent
from resources.dagster_instance import gate
from resources.dagster_instance.traces import TRACE_TAG
from resources.issuers import shell_user
from resources.parts import Parts

_FINISHED = (dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED)
_UNFINISHED = [status for status in dg.DagsterRunStatus if status not in _FINISHED]
# The event log holds everything; a terminal shows progress bars instead of it.
_QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


@dataclass(frozen=True)
class Jobs:
    """The jobs of a code location on one instance."""

    instance: dg.DagsterInstance
    repository: dg.RepositoryDefinition
    bars: Bars
    parts: Parts

    def run(self, name: str) -> None:
        """Run a job in this process; a failed step raises StageError with its sentence, a refused or held run AdmissionError.

        Such a run never comes to the coordinator, so admission is asked here: a budget holds for it as for any other.
        """
        job, run_id = self.repository.get_job(name), str(uuid.uuid4())
        keys = sorted(list(key.path) for key in job.asset_layer.selected_asset_keys)
        self._admit(name, run_id, keys)
        tags = {
            gate.ACTOR_TAG: "falaj run",
            gate.REQUESTER_TAG: shell_user().name,
            gate.PRIORITY: str(gate.admission_of(self.parts).priority(keys)),
        }
        start_tracing("steps", self.parts.settings.traces.endpoint)
        try:
            with span(f"run {name}", run=run_id, job=name):
                tags |= {TRACE_TAG: where} if (where := traceparent()) else {}
                result = job.execute_in_process(instance=self.instance, run_config=_QUIET, raise_on_error=False, run_id=run_id, tags=tags)
        finally:
            self.parts.ledger.settle(run_id)
        if not result.success:
            if _interrupted(result.all_events):
                raise KeyboardInterrupt
            raise StageError(
                f"{name} failed: {_first_failure(result.all_events)} The run's log is in the web UI: falaj up, run {result.run_id}."
            )

    def _admit(self, name: str, run_id: str, keys: Sequence[Sequence[str]]) -> None:
        verdict = gate.admission_of(self.parts).ask(run_id, keys, still_going=gate.still_going(self.instance))
        if verdict.answer != "admit":
            detail = {"job": name, "answer": verdict.answer, "sentence": verdict.sentence}
            self.parts.audit.append(verdict.answer, subject=f"run/{run_id}", actor="falaj run", detail=detail)
            raise AdmissionError(f"{name} was not started. {verdict.sentence}")

    def steps(self, name: str) -> int:
        """How many steps a job has."""
        return len(list(self.repository.get_job(name).graph.nodes))

    def close_orphans(self) -> int:
        """Mark runs as failed whose process died with an earlier main job; return how many."""
        orphans = self.instance.get_runs(filters=dg.RunsFilter(statuses=_UNFINISHED))
        for run in orphans:
            self.instance.add_run_tags(run.run_id, gate.NOT_TRIED_AGAIN)  # this main job does so itself
            self.instance.report_run_failed(run, message="The process of this run died; the next main job goes on from what is stored.")
        return len(orphans)

    def await_sensor_run(
        self, *, sensor: str, job: str, run_key: str, seconds: float, meanwhile: Callable[[], bool]
    ) -> dg.DagsterRun | None:
        """Wait until the run that a sensor asked for has ended, calling `meanwhile` between looks; None where it gave up (False)."""
        deadline = time.monotonic() + seconds
        tags = {"dagster/sensor_name": sensor, "dagster/run_key": run_key}
        while time.monotonic() < deadline:
            runs = self.instance.get_runs(filters=dg.RunsFilter(job_name=job, tags=tags))
            if runs and runs[0].status in _FINISHED and not gate.is_tried_again(runs[0]):
                return runs[0]
            self.bars.note(f"{sensor} asked, {self._now(runs[0])}" if runs else f"waiting for {sensor}")
            if not meanwhile():
                return None
        raise StageError(
            f"{sensor} should have launched {job} ({run_key}) and it should have ended within {seconds:.0f} s; see logs/daemon.log."
        )

    def _now(self, run: dg.DagsterRun) -> str:
        """Say which step a run is at."""
        if run.status == dg.DagsterRunStatus.QUEUED and run.tags.get(gate.HOLD_TAG) == gate.HELD:
            return f"{run.job_name} is held by admission: falaj approve {run.run_id[:8]} releases it"
        begun = self.instance.get_records_for_run(run.run_id, of_type=dg.DagsterEventType.STEP_START, limit=1, ascending=False).records
        at = begun[0].event_log_entry.step_key if begun else None
        return f"{run.job_name} is at {at.replace('__', '/')}" if at else f"{run.job_name} is {run.status.value.lower().replace('_', ' ')}"


def _interrupted(events: Sequence[dg.DagsterEvent]) -> bool:
    """Whether a signal ended a step, or the run between two; what clean-up raised on the way out hides none."""
    ends = [event.step_failure_data.error for event in events if event.is_step_failure]
    ends += [event.job_failure_data.error for event in events if event.is_run_failure]
    return any(error.cls_name == "DagsterExecutionInterruptedError" for end in ends for error in _chain(end))


def _chain(error: SerializableErrorInfo | None) -> Iterator[SerializableErrorInfo]:
    while error is not None:
        yield error
        error = error.cause or error.context


def _first_failure(events: Sequence[dg.DagsterEvent]) -> str:
    for event in events:
        if event.is_step_failure:
            error = event.step_failure_data.error
            while error is not None and error.cls_name != "Failure" and error.cause is not None:
                error = error.cause
            text = (
                error.message.strip().removeprefix("dagster._core.definitions.events.Failure: ") if error is not None else "no reason given"
            )
            return f"{event.step_key}: {text.rstrip('.')}."
    return "no step says why."
