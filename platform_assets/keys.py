"""The only mint of asset keys, groups, job, sensor and table names.

Keys are plain lists of three parts, `[family, name, state]`, so that this room needs no dagster.
"""

from __future__ import annotations

DATASET_STATES = ("ingested", "validated", "quarantined", "protected")
ERASED = "erased"  # of datasets that name persons: erasures that were done; beside the line of their life
RETENTION = "retention"  # beside it too: rows whose period is over, removed
MODEL_STATES = (
    "training_set", "trained", "candidates", "selected", "gate_verdict", "release",
    "deployed", "rollout_verdict", "production_log", "drift_report", "retraining_verdict",
    "retraining_outcome",
)  # fmt: skip

SWEEP = "sweep"  # of models that declare a search space; beside the line of their life
AUDIT_REPORT = "audit_report"  # beside it too: made by its own schedule, of everything before

DRIFT_SENSOR = "drift_found__retrain"
NEW_ROWS_SENSOR = "rows_arrived__retrain"
FAILURE_SENSOR = "run_failed__notify"
HELD_SENSOR = "run_held__judge"
INBOX_SENSOR = "event_arrived__act"
OUTBOX_SENSOR = "audit_entry__tell"
APPROVED_SENSOR = "release_approved__deploy"
NOTICE_SENSOR = "notice_due__deliver"
FIGURES_SENSOR = "figures_due__show"
JUDGE_SENSOR = "model_due__judge"

AUDIT_JOB = "all_models__audit"
JUDGE_JOB = "all_models__monitor"
ERASE_JOB = "all_datasets__erase"
RETAIN_JOB = "all_datasets__retain"


def dataset_key(dataset: str, state: str) -> list[str]:
    """Asset key of one state of a dataset."""
    if state not in (*DATASET_STATES, ERASED, RETENTION):
        raise ValueError(f"no dataset state {state!r}; known: {', '.join(DATASET_STATES)}")
    return ["dataset", dataset, state]


def features_key(dataset: str, view: str) -> list[str]:
    """Asset key of one feature view."""
    return ["features", dataset, view]


def view_name(dataset: str, view: str) -> str:
    """Name of a feature view in Feast, in the online store and in a feature schema: unique over all datasets."""
    return f"{dataset}__{view}"


def model_key(model: str, state: str) -> list[str]:
    """Asset key of one state of a model."""
    if state not in (*MODEL_STATES, SWEEP, AUDIT_REPORT):
        raise ValueError(f"no model state {state!r}; known: {', '.join(MODEL_STATES)}")
    return ["model", model, state]


def table_name(key: list[str]) -> str:
    """Name of the Delta table behind an asset, also its folder under the table store."""
    return "/".join(key)


def dataset_group(dataset: str) -> str:
    """Asset group of a dataset's states and views."""
    return f"dataset_{dataset}"


def model_group(model: str) -> str:
    """Asset group of a model's states."""
    return f"model_{model}"


def refresh_job(dataset: str) -> str:
    """Job that brings a dataset and its features up to the clock."""
    return f"{dataset}__refresh"


def train_job(model: str) -> str:
    """Job from raw rows to a rollout verdict."""
    return f"{model}__train"


def sweep_job(model: str) -> str:
    """Job that trains one trial of the declared search."""
    return f"{model}__sweep"


def release_job(model: str) -> str:
    """Job from a trained network to a release, of the rows that were last trained on."""
    return f"{model}__release"


def monitor_job(model: str) -> str:
    """Job from the production log to a retraining verdict."""
    return f"{model}__monitor"


def schedule_name(job: str, rhythm: str) -> str:
    """Schedule of a job: `<job>__<rhythm>`."""
    return f"{job}__{rhythm}"
