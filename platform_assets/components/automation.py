"""Platform-wide automation: a found drift and arrived rows ask for retraining, a failed run notifies. One sensor for all models."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

import dagster as dg

from platform_assets import keys
from platform_assets.components.events import build_event_sensors
from platform_assets.components.jobs import (
    MODEL_TAG,
    build_monitor_job,
    build_refresh_job,
    build_refresh_schedule,
    build_sweep_jobs,
    build_train_job,
    build_train_schedule,
)
from platform_assets.components.monitoring_steps import close_retraining
from platform_assets.components.step import latest_record
from platform_assets.specs.records import RetrainingVerdict, TablePin, TrainingSet

if TYPE_CHECKING:
    from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

    from resources.parts import Parts

_TICK_SECONDS = 5
_HELD_SECONDS = 30


def build_automation(parts: Parts) -> dg.Definitions:
    """Build jobs, schedules and sensors over every declared dataset and model."""
    catalogue = parts.catalogue
    refresh = {name: build_refresh_job(dataset) for name, dataset in catalogue.datasets.items()}
    train = {name: build_train_job(model, catalogue.dataset_of(name)) for name, model in catalogue.models.items()}
    monitor = [build_monitor_job(model) for model in catalogue.models.values()]
    sweeps = [job for model in catalogue.models.values() for job in build_sweep_jobs(model)]
    schedules = [build_train_schedule(model, train[name]) for name, model in catalogue.models.items()]
    schedules += [build_refresh_schedule(dataset, refresh[name]) for name, dataset in catalogue.datasets.items()]
    jobs = list(train.values())
    sensors = [_drift_sensor(parts, jobs), _rows_sensor(parts, jobs), _failure_sensor(parts), _held_sensor(parts, jobs)] if jobs else []
    sensors += build_event_sensors(parts, [*refresh.values(), *jobs, *monitor]) if refresh else []
    return dg.Definitions(
        jobs=[*refresh.values(), *jobs, *monitor, *sweeps], schedules=[one for one in schedules if one is not None], sensors=sensors
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
        for model in parts.catalogue.models:
            verdict = latest_record(context.instance, keys.model_key(model, "retraining_verdict"), RetrainingVerdict)
            if verdict is not None and verdict.asked and answered.get(model) != verdict.verdict_id:
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
        """Ask when a dataset has grown by the declared number of rows since the model's last training."""
        for name, model in parts.catalogue.models.items():
            rows = latest_record(context.instance, keys.dataset_key(model.dataset, "protected"), TablePin)
            trained = latest_record(context.instance, keys.model_key(name, "training_set"), TrainingSet)
            wanted = model.retraining.on_new_rows
            if wanted and rows and trained and rows.rows - trained.dataset.rows >= wanted:
                yield dg.RunRequest(
                    run_key=f"{name}:rows:{rows.content_hash[:16]}", job_name=keys.train_job(name), tags={"falaj/trigger": "new_rows"}
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


def _failure_sensor(parts: Parts) -> dg.SensorDefinition:
    @dg.run_failure_sensor(
        name=keys.FAILURE_SENSOR,
        description="A failed run is told to people; a retraining that failed is closed as such.",
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=_TICK_SECONDS,
    )
    def run_failed(context: dg.RunFailureSensorContext) -> None:
        """Tell people which run failed and with which sentence."""
        model = context.dagster_run.tags.get(MODEL_TAG, "")
        if model in parts.catalogue.models and "falaj/trigger" in context.dagster_run.tags:
            now = parts.clock.now(parts.catalogue.models[model].dataset)
            close_retraining(parts, model, outcome="failed", why=context.failure_event.message or "", at=now)
        parts.notifier.notify(
            f"run failed: {context.dagster_run.job_name} {model}".strip(), context.failure_event.message or "", severity="error"
        )

    return run_failed
