"""Platform-wide automation: a found drift and arrived rows ask for retraining, a failed run notifies. One sensor for all models."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import dagster as dg

from platform_assets import keys
from platform_assets.components.approved import build_approved_sensor
from platform_assets.components.events import build_event_sensors
from platform_assets.components.home_figures import build_figures_sensor
from platform_assets.components.jobs import (
    JUDGED,
    MODEL_TAG,
    build_audit_job,
    build_audit_schedule,
    build_erase_job,
    build_monitor_job,
    build_refresh_job,
    build_refresh_schedule,
    build_retain_job,
    build_retain_schedule,
    build_sweep_jobs,
    build_train_job,
    build_train_schedule,
)
from platform_assets.components.judging import build_judging
from platform_assets.components.retraining_evidence import decide_now, gather_evidence
from platform_assets.components.retraining_history import close_retraining, open_retraining
from platform_assets.components.step import latest_records
from platform_assets.specs.records import RetrainingVerdict, TablePin, TrainingSet
from resources.dagster_instance.gate import ask_again, is_tried_again

if TYPE_CHECKING:
    from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

    from resources.parts import Parts

_TICK_SECONDS = 5
_HELD_SECONDS = 30
_TELL_SECONDS = 15


def build_automation(parts: Parts) -> dg.Definitions:
    """Build jobs, schedules and sensors over every declared dataset and model."""
    catalogue = parts.catalogue
    refresh = {name: build_refresh_job(dataset) for name, dataset in catalogue.datasets.items()}
    train = {name: build_train_job(model, catalogue.dataset_of(name)) for name, model in catalogue.models.items()}
    monitor = [build_monitor_job(model) for model in catalogue.models.values()]
    sweeps = [job for model in catalogue.models.values() for job in build_sweep_jobs(model)]
    schedules = [build_train_schedule(model, train[name], parts) for name, model in catalogue.models.items()]
    schedules += [build_refresh_schedule(dataset, refresh[name]) for name, dataset in catalogue.datasets.items()]
    jobs = list(train.values())
    duties = [build_audit_job(catalogue.models)] if jobs else []
    schedules += [build_audit_schedule(job) for job in duties]
    erase = build_erase_job(catalogue.datasets.values())
    duties += [erase] if erase else []
    retain = build_retain_job(catalogue.datasets.values()) if refresh else None
    duties += [retain] if retain else []
    schedules += [build_retain_schedule(retain)] if retain else []
    judge, due = build_judging(parts, monitor)
    monitor += judge
    made = (
        _drift_sensor(parts, jobs),
        _rows_sensor(parts, jobs),
        _failure_sensor(parts, [*refresh.values(), *jobs, *monitor, *duties]),
        _held_sensor(parts, jobs),
        _notice_sensor(parts),
        build_figures_sensor(parts),
    )
    approved = build_approved_sensor(parts, jobs)
    sensors = [*made, *due, *([approved] if approved else [])] if jobs else []
    sensors += build_event_sensors(parts, [*refresh.values(), *jobs, *monitor, *duties]) if refresh else []
    return dg.Definitions(
        jobs=[*refresh.values(), *jobs, *monitor, *sweeps, *duties],
        schedules=[one for one in schedules if one is not None],
        sensors=sensors,
    )


def _drift_sensor(parts: Parts, jobs: list[UnresolvedAssetJobDefinition]) -> dg.SensorDefinition:
    @dg.sensor(
        name=keys.DRIFT_SENSOR,
        description="A retraining verdict that asks launches one training.",
        jobs=jobs,
        minimum_interval_seconds=_TICK_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
    )
    def drift_found(context: dg.SensorEvaluationContext) -> Iterator[dg.RunRequest]:
        """Ask for one retraining per verdict: the verdict's id is the run key, so neither a restart nor a second tick asks again."""
        answered = json.loads(context.cursor or "{}")
        verdicts = {model: keys.model_key(model, "retraining_verdict") for model in parts.catalogue.models}
        for model, verdict in latest_records(context.instance, verdicts, RetrainingVerdict).items():
            if verdict.asked and answered.get(model) != verdict.verdict_id:
                answered[model] = verdict.verdict_id
                yield dg.RunRequest(
                    run_key=f"{model}:{verdict.verdict_id}", job_name=keys.train_job(model), tags={"falaj/trigger": verdict.trigger}
                )
        context.update_cursor(json.dumps(answered))

    return drift_found


def _rows_sensor(parts: Parts, jobs: list[UnresolvedAssetJobDefinition]) -> dg.SensorDefinition:
    @dg.sensor(
        name=keys.NEW_ROWS_SENSOR,
        description="Enough new rows since the last training (retraining.on_new_rows) launch one.",
        jobs=jobs,
        minimum_interval_seconds=60,
        default_status=dg.DefaultSensorStatus.RUNNING,
    )
    def rows_arrived(context: dg.SensorEvaluationContext) -> Iterator[dg.RunRequest]:
        """Ask the policy when a dataset has grown by the declared number of rows since the model's last training."""
        counted = {name: model for name, model in parts.catalogue.models.items() if model.retraining.on_new_rows}
        grown = {model.dataset: keys.dataset_key(model.dataset, "protected") for model in counted.values()}
        there = latest_records(context.instance, grown, TablePin)
        learnt = latest_records(context.instance, {name: keys.model_key(name, "training_set") for name in counted}, TrainingSet)
        for name, model in counted.items():
            rows, trained, wanted = there.get(model.dataset), learnt.get(name), model.retraining.on_new_rows
            if not (wanted and rows and trained and rows.rows - trained.dataset.rows >= wanted):
                continue
            dataset = parts.catalogue.dataset_of(name)
            evidence = replace(gather_evidence(model, dataset, parts, context.instance), drift=(), performance=(), wanted=())
            verdict = decide_now(model, dataset, parts, evidence)
            if verdict.asked and verdict.trigger == "new_rows":
                # Written first: killed between the two, the next main job closes it as cut off, and nothing is launched twice.
                open_retraining(parts, name, verdict, age=0)
                yield dg.RunRequest(
                    run_key=f"{name}:{verdict.verdict_id}", job_name=keys.train_job(name), tags={"falaj/trigger": "new_rows"}
                )

    return rows_arrived


def _held_sensor(parts: Parts, jobs: list[UnresolvedAssetJobDefinition]) -> dg.SensorDefinition:
    @dg.sensor(
        name=keys.HELD_SENSOR,
        description="A run that admission holds is judged again: a new month, a raised budget, another's promise that fell due.",
        jobs=jobs,
        minimum_interval_seconds=_HELD_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
    )
    def run_held(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        """Judge every held run again, the most urgent first, by the declarations as they stand now; it launches nothing itself."""
        from resources.dagster_instance import gate
        from resources.dagster_instance.coordinator import read_parts

        held = sorted(gate.held_runs(context.instance), key=lambda run: int(run.tags.get("dagster/priority", "0")), reverse=True)
        if not held:
            return dg.SkipReason("No run is held.")
        now = read_parts(parts.settings)
        return dg.SkipReason(" ".join(f"{run.run_id[:8]}: {gate.judge_again(context.instance, run, now).sentence}" for run in held))

    return run_held


def _notice_sensor(parts: Parts) -> dg.SensorDefinition:
    @dg.sensor(
        name=keys.NOTICE_SENSOR,
        description="Notices that are due go out to webhook and e-mail; a receiver that is away is tried again later. It launches nothing.",
        minimum_interval_seconds=_TELL_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
    )
    def notice_due(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        """Deliver what is due; what could not be delivered is said in the tick and tried again by a later one."""
        from resources.couriers import build_couriers
        from resources.outbox import Outbox, deliver

        settings = parts.settings
        couriers = build_couriers(settings)
        if not couriers:
            return dg.SkipReason("Nobody outside is to be told: FALAJ_WEBHOOK_URL and FALAJ_SMTP_HOST are not set.")
        problems = deliver(Outbox(settings.home.notices), couriers, quiet=settings.notices.quiet, now=time.time())
        for problem in problems:
            context.log.warning(problem)
        return dg.SkipReason(" ".join(problems) or "Everything that was due is delivered.")

    return notice_due


def failed_models(run: dg.DagsterRun, steps: Sequence[str]) -> list[str]:
    """Name the models of a run whose own steps failed; all of them where no step says so."""
    model = run.tags.get(MODEL_TAG, "")
    return [name for name in model.split(",") if {"__".join(keys.model_key(name, state)) for state in JUDGED} & set(steps)] or [model]


def _failure_sensor(parts: Parts, jobs: list[UnresolvedAssetJobDefinition]) -> dg.SensorDefinition:
    @dg.run_failure_sensor(
        name=keys.FAILURE_SENSOR,
        description="A failed run is told to people; a retraining that failed is closed as such.",
        request_jobs=jobs,
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=_TICK_SECONDS,
    )
    def run_failed(context: dg.RunFailureSensorContext) -> dg.RunRequest | None:
        """Tell people which run failed and with which sentence, and whether it goes on by itself."""
        run = context.dagster_run
        model, why = run.tags.get(MODEL_TAG, ""), context.failure_event.message or ""
        errors = [event.step_failure_data.error for event in context.get_step_failure_events()]
        again = ask_again(run, errors)
        if again is not None or (is_tried_again(run) and not errors):  # a step's failure is never tried again by the daemon
            text = f"{why} Another run goes on from what is stored."
            parts.notifier.notify(f"run died: {run.job_name} {model}".strip(), text, severity="warning", key=f"{model}/died/{run.run_id}")
            return again
        if model in parts.catalogue.models and "falaj/trigger" in run.tags:
            now = parts.clock.now(parts.catalogue.models[model].dataset)
            close_retraining(parts, model, outcome="failed", why=why, at=now)
        # of a run that several models share, only those whose steps failed: the others are judged
        for name in failed_models(run, [event.step_key or "" for event in context.get_step_failure_events()]):
            parts.notifier.notify(
                f"run failed: {run.job_name} {name}".strip(), why, severity="error",
                key=f"{name}/failed/{run.run_id}",
            )  # fmt: skip
        return None

    return run_failed
