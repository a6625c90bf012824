"""Jobs and schedules of datasets and models, built once at the root so that the sensors over all of them name the same objects."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from platform_assets import keys
from platform_assets.components.retraining_evidence import say_under_way
from platform_assets.components.step import latest_record
from platform_assets.specs.dataset import DatasetSpec
from platform_assets.specs.model import ModelSpec
from platform_assets.specs.records import DriftPointer
from resources.dagster_instance.gate import MODEL_TAG, TENANT_TAG

if TYPE_CHECKING:
    from resources.parts import Parts

_MONITORED = ("production_log", "drift_report", "retraining_verdict")
_OUTCOME = "retraining_outcome"  # made by both jobs: a rollout ends a retraining, a verdict says what stands in the way of the next
JUDGED = (*_MONITORED, _OUTCOME)


def build_refresh_job(dataset: DatasetSpec) -> UnresolvedAssetJobDefinition:
    """Build the job that brings a dataset and its features up to the clock."""
    keyed = _dataset_keys(dataset)
    return _build_job(keys.refresh_job(dataset.name), keyed, f"Bring {dataset.name} and its features up to the clock.")


def build_refresh_schedule(dataset: DatasetSpec, job: UnresolvedAssetJobDefinition) -> dg.ScheduleDefinition | None:
    """Build the declared schedule of a dataset's refresh; None where none is declared."""
    if not dataset.refresh:
        return None
    # Declared is in force; a dataset without a source of its own waits until a person switches it on.
    status = dg.DefaultScheduleStatus.STOPPED if dataset.source.kind == "provided" else dg.DefaultScheduleStatus.RUNNING
    name = keys.schedule_name(job.name, "declared")
    return dg.ScheduleDefinition(name, job=job, cron_schedule=dataset.refresh, execution_timezone="UTC", default_status=status)


def build_train_job(model: ModelSpec, dataset: DatasetSpec) -> UnresolvedAssetJobDefinition:
    """Build the job from raw rows to a rollout verdict."""
    life = [keys.model_key(model.name, state) for state in keys.MODEL_STATES if state not in _MONITORED]
    return _build_job(keys.train_job(model.name), [*_dataset_keys(dataset), *life], "From raw rows to a rollout verdict.", model)


def build_monitor_job(model: ModelSpec) -> UnresolvedAssetJobDefinition:
    """Build the job from the production log to a retraining verdict."""
    monitored = [keys.model_key(model.name, state) for state in JUDGED]
    return _build_job(keys.monitor_job(model.name), monitored, "From the production log to a retraining verdict and its outcome.", model)


def build_judge_job(models: Iterable[str]) -> UnresolvedAssetJobDefinition:
    """Build the job of which each run judges some of these models."""
    made = [keys.model_key(name, state) for name in models for state in JUDGED]
    return _build_job(keys.JUDGE_JOB, made, "From production logs to retraining verdicts, of the models whose turn has come.")


def build_sweep_jobs(model: ModelSpec) -> list[UnresolvedAssetJobDefinition]:
    """Build the job of one trial, and the one that makes a release of what is trained; none where no search space is declared."""
    if not model.training.search:
        return []
    states = keys.MODEL_STATES
    made = [keys.model_key(model.name, state) for state in states[states.index("trained") : states.index("release") + 1]]
    return [
        _build_job(keys.sweep_job(model.name), [keys.model_key(model.name, keys.SWEEP)], "One trial of the declared search.", model),
        _build_job(keys.release_job(model.name), made, "From the best network on the last training set to a release.", model),
    ]


def build_audit_job(models: Iterable[str]) -> UnresolvedAssetJobDefinition:
    """Build the job that makes the audit report of every model."""
    made = [keys.model_key(name, keys.AUDIT_REPORT) for name in models]
    return _build_job(keys.AUDIT_JOB, made, "The regulator's report of every model.")


def build_audit_schedule(job: UnresolvedAssetJobDefinition) -> dg.ScheduleDefinition:
    """Build the schedule that makes audits regular: every Monday, over the span that each model declares."""
    return _build_weekly(job, cron="0 5 * * 1")


def build_erase_job(datasets: Iterable[DatasetSpec]) -> UnresolvedAssetJobDefinition | None:
    """Build the job that finishes erasures; None where no dataset names persons."""
    made = [keys.dataset_key(dataset.name, keys.ERASED) for dataset in datasets if dataset.subject]
    return _build_job(keys.ERASE_JOB, made, "Finish every erasure that is under way.") if made else None


def build_retain_job(datasets: Iterable[DatasetSpec]) -> UnresolvedAssetJobDefinition:
    """Build the job that enforces the retention of every dataset, and of what models answered on it."""
    made = [keys.dataset_key(dataset.name, keys.RETENTION) for dataset in datasets]
    return _build_job(keys.RETAIN_JOB, made, "Remove what may not be kept any longer.")


def build_retain_schedule(job: UnresolvedAssetJobDefinition) -> dg.ScheduleDefinition:
    """Build the schedule of retention: every Sunday, since each enforcement ends the history of the tables that held such rows."""
    return _build_weekly(job, cron="0 4 * * 0")


def _build_weekly(job: UnresolvedAssetJobDefinition, *, cron: str) -> dg.ScheduleDefinition:
    return dg.ScheduleDefinition(
        keys.schedule_name(job.name, "weekly"), job=job, cron_schedule=cron, execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
    )  # fmt: skip


def build_train_schedule(model: ModelSpec, job: UnresolvedAssetJobDefinition, parts: Parts) -> dg.ScheduleDefinition | None:
    """Build the declared schedule of a model's training; None where none is declared. It is quiet where the policy could not be heeded."""
    if model.retraining.schedule is None:
        return None
    name = keys.schedule_name(keys.train_job(model.name), "declared")
    running = dg.DefaultScheduleStatus.RUNNING  # declared is in force; the UI switches it off

    def ask(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        under_way = say_under_way(model, parts, context.instance)
        if under_way:
            return dg.SkipReason(f"{under_way} is under way")
        pointer = latest_record(context.instance, keys.model_key(model.name, "drift_report"), DriftPointer)
        if pointer is not None and pointer.feed_fault:
            return dg.SkipReason(f"{pointer.feed_fault}; nothing is learnt from data at fault")
        return dg.RunRequest(tags={"falaj/trigger": "schedule"})

    return dg.ScheduleDefinition(
        name, job=job, cron_schedule=model.retraining.schedule, execution_timezone="UTC", default_status=running, execution_fn=ask
    )


def _dataset_keys(dataset: DatasetSpec) -> list[list[str]]:
    states = [keys.dataset_key(dataset.name, state) for state in keys.DATASET_STATES]
    return [*states, *(keys.features_key(dataset.name, view) for view in dataset.views)]


def _build_job(name: str, assets: list[list[str]], description: str, model: ModelSpec | None = None) -> UnresolvedAssetJobDefinition:
    tags = {MODEL_TAG: model.name, TENANT_TAG: model.tenant} if model else {}
    return dg.define_asset_job(
        name, selection=dg.AssetSelection.assets(*(dg.AssetKey(key) for key in assets)), tags=tags, description=description
    )
