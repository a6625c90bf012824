"""Models that declare a rhythm (`monitoring.every`) are judged by it: a sensor asks for one run for all that are due at once, of a tenant.

A run pays for its start, its imports and its place in the queue once, whatever it judges; with a run for each of 200 models a minute is too
short. What each model is told stays its own: its assets, its checks, its lineage, its row of the ledger. A model whose last asking gave no
verdict (its step failed, the run was killed, held or refused) is asked for alone the next time, so that nobody waits for it twice.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import dagster as dg

from platform_assets import keys
from platform_assets.components.jobs import JUDGED, MODEL_TAG, TENANT_TAG, build_judge_job
from platform_assets.components.retraining_evidence import UNFINISHED
from platform_assets.components.step import key_of
from platform_assets.stages.monitoring.turns import is_due, share_out
from resources.dagster_instance import gate

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

    from resources.parts import Parts

_TICK_SECONDS = 5
_SHARED_NO_MORE = "Admission holds this run for one of its models; the others do not wait: each is asked for alone."


def build_judging(
    parts: Parts, jobs: Sequence[UnresolvedAssetJobDefinition]
) -> tuple[list[UnresolvedAssetJobDefinition], list[dg.SensorDefinition]]:
    """Build the job and the sensor over all models with a rhythm; neither where none has one. `jobs`: monitoring jobs of single models."""
    rhythms = {name: model.monitoring.every.total_seconds() for name, model in parts.catalogue.models.items() if model.monitoring.every}
    if not rhythms:
        return [], []
    job = build_judge_job(rhythms)

    @dg.sensor(
        name=keys.JUDGE_SENSOR,
        description="Models whose turn has come (monitoring.every) are judged, those of a tenant in one run.",
        jobs=[*jobs, job],
        minimum_interval_seconds=_TICK_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
    )
    def model_due(context: dg.SensorEvaluationContext) -> Iterator[dg.RunRequest | dg.SkipReason]:
        """Ask for the runs of this turn; the cursor is when each model was last asked for (epoch seconds)."""
        asked: dict[str, float] = json.loads(context.cursor or "{}")
        now = time.time()
        _end_held(context.instance)
        due = [name for name, every in rhythms.items() if is_due(every=every, asked=asked.get(name), now=now)]
        due = _served(due, parts, context.instance, busy=_busy(context.instance)) if due else []
        groups = _groups(due, parts, alone=_without_verdict(due, asked, context.instance))
        for group in groups:
            yield ask_for(group, parts, now=now)
        context.update_cursor(json.dumps({**asked, **dict.fromkeys(due, now)}))
        if not groups:
            yield dg.SkipReason("No model's turn has come.")

    return [job], [model_due]


def ask_for(group: Sequence[str], parts: Parts, *, now: float) -> dg.RunRequest:
    """Return the request that judges these models of one tenant; none is tried again by the daemon, since its next turn comes anyhow."""
    run_key = f"judge:{group[0]}:{len(group)}:{now:.3f}"
    if len(group) == 1:
        return dg.RunRequest(run_key=run_key, job_name=keys.monitor_job(group[0]), tags=gate.NOT_TRIED_AGAIN)
    tags = {MODEL_TAG: ",".join(group), TENANT_TAG: parts.catalogue.models[group[0]].tenant, **gate.NOT_TRIED_AGAIN}
    selection = [key_of(key) for name in group for key in _judged(name)]
    return dg.RunRequest(run_key=run_key, job_name=keys.JUDGE_JOB, asset_selection=selection, tags=tags)


def _judged(model: str) -> list[list[str]]:
    return [keys.model_key(model, state) for state in JUDGED]


def _busy(instance: dg.DagsterInstance) -> set[str]:
    """Models of runs that have not ended: of those the next turn is early enough."""
    runs = instance.get_runs(dg.RunsFilter(statuses=UNFINISHED))
    return {name for run in runs for name in run.tags.get(MODEL_TAG, "").split(",")}


def _served(due: Sequence[str], parts: Parts, instance: dg.DagsterInstance, *, busy: Collection[str]) -> list[str]:
    """Those that are rolled out, have answered, and of which no run is under way."""
    made = _newest([keys.model_key(name, state) for name in due for state in ("rollout_verdict", "production_log")], instance)

    def has_answered(name: str) -> bool:
        return ("model", name, "production_log") in made or parts.serving.log_counts(name).accepted > 0

    return [name for name in due if name not in busy and ("model", name, "rollout_verdict") in made and has_answered(name)]


def _without_verdict(due: Sequence[str], asked: Mapping[str, float], instance: dg.DagsterInstance) -> set[str]:
    before = [name for name in due if name in asked]
    made = _newest([keys.model_key(name, "retraining_verdict") for name in before], instance)
    return {name for name in before if made.get(("model", name, "retraining_verdict"), 0.0) < asked[name]}


def _newest(assets: Sequence[Sequence[str]], instance: dg.DagsterInstance) -> dict[tuple[str, ...], float]:
    """When each of these was last made (epoch seconds), in one query; those that never were are left out."""
    records = instance.get_asset_records([key_of(key) for key in assets]) if assets else []
    return {
        tuple(one.asset_entry.asset_key.path): one.asset_entry.last_materialization_record.timestamp
        for one in records
        if one.asset_entry.last_materialization_record is not None
    }


def _groups(due: Sequence[str], parts: Parts, *, alone: Collection[str]) -> list[tuple[str, ...]]:
    """Who is judged together; a group that admission would not admit as a whole is asked for model by model."""
    admission = gate.admission_of(parts)
    groups: list[tuple[str, ...]] = []
    for group in share_out({name: parts.catalogue.models[name].tenant for name in due}, alone=alone):
        whole = len(group) == 1 or admission.foresee([key for name in group for key in _judged(name)]).answer == "admit"
        groups += [group] if whole else [(name,) for name in group]
    return groups


def _end_held(instance: dg.DagsterInstance) -> None:
    """End shared runs that admission holds after all: a budget broke between the question and the run."""
    for run in gate.held_runs(instance):
        if run.job_name == keys.JUDGE_JOB:
            instance.report_run_canceled(run, message=_SHARED_NO_MORE)
