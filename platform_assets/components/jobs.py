"""Jobs and schedules of every model, built once at the root so that the sensors over all models name the same objects."""

from __future__ import annotations

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from platform_assets import keys
from platform_assets.specs.dataset import DatasetSpec
from platform_assets.specs.model import ModelSpec
from resources.dagster_instance.gate import MODEL_TAG, TENANT_TAG

_MONITORED = ("production_log", "drift_report", "retraining_verdict")


def build_train_job(model: ModelSpec, dataset: DatasetSpec) -> UnresolvedAssetJobDefinition:
    """Build the job from raw rows to a rollout verdict."""
    data = [keys.dataset_key(dataset.name, state) for state in keys.DATASET_STATES]
    views = [keys.features_key(dataset.name, view) for view in dataset.views]
    life = [keys.model_key(model.name, state) for state in keys.MODEL_STATES if state not in _MONITORED]
    return _build_job(keys.train_job(model.name), [*data, *views, *life], model, "From raw rows to a rollout verdict.")


def build_monitor_job(model: ModelSpec) -> UnresolvedAssetJobDefinition:
    """Build the job from the production log to a retraining verdict."""
    monitored = [keys.model_key(model.name, state) for state in _MONITORED]
    return _build_job(keys.monitor_job(model.name), monitored, model, "From the production log to a retraining verdict.")


def build_sweep_jobs(model: ModelSpec) -> list[UnresolvedAssetJobDefinition]:
    """Build the job of one trial, and the one that makes a release of what is trained; none where no search space is declared."""
    if not model.training.search:
        return []
    states = keys.MODEL_STATES
    made = [keys.model_key(model.name, state) for state in states[states.index("trained") : states.index("release") + 1]]
    return [
        _build_job(keys.sweep_job(model.name), [keys.model_key(model.name, keys.SWEEP)], model, "One trial of the declared search."),
        _build_job(keys.release_job(model.name), made, model, "From the best network on the last training set to a release."),
    ]


def build_train_schedule(model: ModelSpec, job: UnresolvedAssetJobDefinition) -> dg.ScheduleDefinition | None:
    """Build the declared schedule of a model's training; None where none is declared."""
    if model.retraining.schedule is None:
        return None
    name = keys.schedule_name(keys.train_job(model.name), "declared")
    running = dg.DefaultScheduleStatus.RUNNING  # declared is in force; the UI switches it off
    return dg.ScheduleDefinition(name, job=job, cron_schedule=model.retraining.schedule, execution_timezone="UTC", default_status=running)


def _build_job(name: str, assets: list[list[str]], model: ModelSpec, description: str) -> UnresolvedAssetJobDefinition:
    tags = {MODEL_TAG: model.name, TENANT_TAG: model.tenant}
    return dg.define_asset_job(
        name, selection=dg.AssetSelection.assets(*(dg.AssetKey(key) for key in assets)), tags=tags, description=description
    )
