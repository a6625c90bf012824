"""What the policy decides on, gathered from records, ledger, audit log, instance and server. Nothing is decided here."""

from __future__ import annotations

import json
from datetime import datetime
from statistics import median
from typing import TYPE_CHECKING

import dagster as dg

from platform_assets import keys
from platform_assets.components.retraining_history import past_retrainings, wanted_retrainings
from platform_assets.components.step import latest_record
from platform_assets.errors import ReleaseError, ServingError
from platform_assets.specs.feed import FeedReport
from platform_assets.specs.record_json import read_record
from platform_assets.specs.records import DriftPointer, DriftReport, TablePin, TrainingSet
from platform_assets.stages.monitoring.feed_report import FEED_FILE
from platform_assets.stages.retraining.policy import Evidence, decide
from platform_assets.stages.retraining.start import Base

if TYPE_CHECKING:
    from platform_assets.specs.dataset import DatasetSpec
    from platform_assets.specs.model import ModelSpec
    from platform_assets.specs.records import RetrainingVerdict
    from platform_assets.specs.spending import Entry
    from resources.parts import Parts

REPORT_FILE = "report.json"
_LAST_RUNS = 5
_BEFORE_PRODUCTION = [f"model/{state}" for state in keys.MODEL_STATES[: keys.MODEL_STATES.index("production_log")]]
UNFINISHED = [
    dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]  # fmt: skip


def read_drift(parts: Parts, pointer: DriftPointer | None) -> DriftReport:
    """Return the whole report behind a pointer; an empty one where there is none."""
    return read_record(DriftReport, (parts.artefacts.path(pointer.digest) / REPORT_FILE).read_bytes()) if pointer else DriftReport(())


def read_feed(parts: Parts, pointer: DriftPointer | None) -> FeedReport:
    """Return what was found of the feed beside a drift report; an empty one where there is none."""
    path = parts.artefacts.path(pointer.digest) / FEED_FILE if pointer else None
    return read_record(FeedReport, path.read_bytes()) if path is not None and path.is_file() else FeedReport()


def gather_evidence(model: ModelSpec, dataset: DatasetSpec, parts: Parts, instance: dg.DagsterInstance) -> Evidence:
    """Return everything that is known now of whether to train this model again."""
    pointer = latest_record(instance, keys.model_key(model.name, "drift_report"), DriftPointer)
    report = read_drift(parts, pointer)
    trained_on = latest_record(instance, keys.model_key(model.name, "training_set"), TrainingSet)
    rows = latest_record(instance, keys.dataset_key(dataset.name, "protected"), TablePin)
    cpu_seconds, price_aed = cost_of_training(parts.ledger.history(model.name, last=_LAST_RUNS))
    return Evidence(
        drift=report.windows,
        performance=report.performance,
        estimates=report.estimates,
        rows_since_training=rows.rows - trained_on.dataset.rows if rows and trained_on else 0,
        age=parts.clock.now(dataset.name) - datetime.fromisoformat(trained_on.last_event) if trained_on else None,
        wanted=wanted_retrainings(parts, model.name),
        feed=read_feed(parts, pointer),
        under_way=say_under_way(model, parts, instance),
        cpu_seconds=cpu_seconds,
        price_aed=price_aed,
        base=find_base(model, parts),
        learns_from=_say_rows(model),
    )


def find_base(model: ModelSpec, parts: Parts) -> Base:
    """Return the live release's training, or why no training can begin with its weights."""
    if model.training.privacy is not None:
        return Base(refused="training.privacy begins from nothing: what earlier weights learnt is counted nowhere")
    try:
        live = parts.serving.status(model.name)["live"]
    except ServingError:
        return Base(refused="no server says which release is live")
    if live is None:
        return Base()
    files = parts.releases.open(live)
    training = json.loads(files["lineage.json"])["training"]
    declared = type(model).model_validate(json.loads(files["declaration.json"])["model"])
    other = [name for name in ("features", "target", "split") if getattr(declared, name) != getattr(model, name)]
    other += ["training"] if declared.training.learning() != model.training.learning() else []
    if other:
        return Base(refused=f"the champion {live[:12]} was declared otherwise ({', '.join(other)})")
    try:
        parts.artefacts.path(training)
    except ReleaseError:
        return Base(refused=f"the champion's training {training[:12]} is not kept any more")
    return Base(training, refused="")


def _say_rows(model: ModelSpec) -> str:
    newest = model.split.recent_rows
    return f"the newest {newest:,} rows (split.recent_rows)" if newest else "all rows (split.recent_rows is not set)"


def decide_now(model: ModelSpec, dataset: DatasetSpec, parts: Parts, evidence: Evidence) -> RetrainingVerdict:
    """Hold the evidence against the model's own past and the data's clock."""
    return decide(evidence, history=past_retrainings(parts, model.name), now=parts.clock.now(dataset.name), spec=model.retraining)


def say_under_way(model: ModelSpec, parts: Parts, instance: dg.DagsterInstance) -> str:
    """Name the training run or rollout of this model that has not ended; "" where there is none."""
    running = instance.get_runs(dg.RunsFilter(job_name=keys.train_job(model.name), statuses=UNFINISHED), limit=1)
    if running:
        return f"the training run {running[0].run_id[:8]}"
    try:
        serving = parts.serving.status(model.name)
    except ServingError:  # a stopped server rolls nothing out
        return ""
    return f"the rollout of {serving['challenger'][:12]}" if serving.get("challenger") else ""


def cost_of_training(entries: list[Entry]) -> tuple[float | None, float | None]:
    """Return CPU seconds and AED of one training up to its rollout, stage by stage the median of the last; None where none was made."""
    stages = {stage: [entry for entry in entries if entry.stage == stage] for stage in _BEFORE_PRODUCTION}
    if not stages["model/trained"]:
        return None, None
    known = [found for found in stages.values() if found]
    return (
        sum(median(entry.cpu_seconds for entry in found) for found in known),
        sum(median(entry.price_aed for entry in found) for found in known),
    )
