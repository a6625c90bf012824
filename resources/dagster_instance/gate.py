"""Asking admission for Dagster's runs, and making its verdict true: run tags, the run's event log, the audit log.

The same for every way a run is asked for; the coordinator asks when it is submitted, a sensor again while it is held, a person releases.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import dagster as dg
from dagster._core.storage.tags import MAX_RETRIES_TAG, RETRY_ON_ASSET_OR_OP_FAILURE_TAG, WILL_RETRY_TAG

from platform_assets.errors import StateError
from platform_assets.stages.placement.binding import MODEL, PRIORITY, TENANT, bind_run
from resources.admission import Admission, StillGoing

if TYPE_CHECKING:
    from dagster._core.snap.execution_plan_snapshot import ExecutionStepSnap
    from dagster._utils.error import SerializableErrorInfo

    from platform_assets.specs.spending import Verdict
    from resources.parts import Parts

HOLD_TAG, MODEL_TAG, TENANT_TAG = "falaj/hold", MODEL, TENANT
EXPECTED_TAG, SHARE_TAG, APPROVED_TAG = "falaj/expected_aed", "falaj/share", "falaj/approved_by"
HELD, FREE = "yes", "no"
ACTOR_TAG, REQUESTER_TAG = "falaj/actor", "falaj/requester"
USER_HEADER = "X-Falaj-User"  # set by the gateway, which alone reaches the web server
# A run whose process died, or whose database was away for long, goes on in another; a step that failed said why, and would fail again.
TRIED_AGAIN = {MAX_RETRIES_TAG: "2", RETRY_ON_ASSET_OR_OP_FAILURE_TAG: "false"}
NOT_TRIED_AGAIN = {MAX_RETRIES_TAG: "0"}
AGAIN_TAG = "falaj/again"  # how often a run was asked for anew because of an outage
_CARRIED = ("falaj/event", "falaj/trigger", "falaj/why")
_AWAY = ("OperationalError", "InterfaceError", "DagsterPostgresException", "OutageError")
_LAUNCHERS = ("dagster/sensor_name", "dagster/schedule_name", ACTOR_TAG)


def admission_of(parts: Parts) -> Admission:
    """Return admission over one home's declarations and ledger."""
    return Admission(parts.catalogue, parts.ledger, places=parts.settings.places)


def launcher_of(tags: Mapping[str, str]) -> str:
    """Say who asked for a run, as far as its tags tell."""
    named = next((tags[name] for name in _LAUNCHERS if name in tags), None)
    if named is not None:
        return named
    if "dagster/backfill" in tags:
        return f"backfill {tags['dagster/backfill']}"
    return "declarative automation" if tags.get("dagster/from_automation_condition") == "true" else "web UI or API"


def requester_of(tags: Mapping[str, str]) -> str:
    """Say which person asked for a run, or what asked where none did; whoever it was cannot approve what it makes."""
    return tags.get(REQUESTER_TAG) or launcher_of(tags)


def is_tried_again(run: dg.DagsterRun) -> bool:
    """Whether the daemon goes on with a failed run by itself; as long as that is not written down yet, a run of the queue may be."""
    unknown = "true" if int(run.tags.get(MAX_RETRIES_TAG, "0")) else "false"
    return run.status is dg.DagsterRunStatus.FAILURE and run.tags.get(WILL_RETRY_TAG, unknown) == "true"


def ask_again(run: dg.DagsterRun, errors: Sequence[SerializableErrorInfo | None]) -> dg.RunRequest | None:
    """Return the request that goes on with a run of the queue whose step failed because a database was away around it.

    Dagster asks its storage before and after a step's own work; what fails there is the step's failure, and no retry catches it.
    """
    times, most = int(run.tags.get(AGAIN_TAG, "0")), int(run.tags.get(MAX_RETRIES_TAG, "0"))
    if times >= most or not any(error is not None and _was_away(error) for error in errors):
        return None
    tags = {name: run.tags[name] for name in (*_CARRIED, ACTOR_TAG, REQUESTER_TAG) if name in run.tags} | {AGAIN_TAG: str(times + 1)}
    selection = sorted(run.asset_selection, key=str) if run.asset_selection else None
    return dg.RunRequest(run_key=f"again:{run.run_id}", job_name=run.job_name, tags=tags, asset_selection=selection)


def _was_away(error: SerializableErrorInfo) -> bool:
    return error.cls_name in _AWAY or any(inner is not None and _was_away(inner) for inner in (error.cause, error.context))


def planned_steps(instance: dg.DagsterInstance, run: dg.DagsterRun) -> list[ExecutionStepSnap]:
    """Return the steps that a run would take, read off its execution plan, so that it does not matter how it was asked for."""
    if run.execution_plan_snapshot_id is None:
        return []
    plan = instance.get_execution_plan_snapshot(run.execution_plan_snapshot_id)
    wanted = set(plan.step_keys_to_execute)
    return [step for step in plan.steps if step.key in wanted]


def planned_keys(steps: Iterable[ExecutionStepSnap]) -> list[list[str]]:
    """Return the assets that these steps would make."""
    outputs = [output.properties.asset_key for step in steps for output in step.outputs if output.properties]
    return sorted({tuple(key.path): list(key.path) for key in outputs if key}.values())


def still_going(instance: dg.DagsterInstance) -> StillGoing:
    """Return the question that admission asks: which of these runs have not ended."""

    def ask(run_ids: Sequence[str]) -> dict[str, bool]:
        runs = instance.get_runs(dg.RunsFilter(run_ids=list(run_ids))) if run_ids else []
        return {run.run_id: not run.is_finished for run in runs}

    return ask


def binding_tags(run: dg.DagsterRun, steps: Sequence[ExecutionStepSnap], *, admission: Admission) -> dict[str, str]:
    """Return the tags that a run has whatever its launcher wrote: what its steps are bound to, whose it is, its place in the queue."""
    keys, models = planned_keys(steps), admission.catalogue.models
    found = sorted({key[1] for key in keys if key[0] == "model" and key[1] in models})
    tags = {**bind_run(run.tags, [step.tags or {} for step in steps]), PRIORITY: str(admission.priority(keys)), HOLD_TAG: FREE}
    tags |= dict.fromkeys({APPROVED_TAG} & run.tags.keys(), "")
    if found or MODEL_TAG in run.tags:
        tags[MODEL_TAG] = ",".join(found) or "none"
    if found or TENANT_TAG in run.tags:
        tags[TENANT_TAG] = ",".join(sorted({models[name].tenant for name in found})) or "none"
    return tags


def verdict_tags(verdict: Verdict) -> dict[str, str]:
    """Return what a run carries of its verdict."""
    held = HELD if verdict.answer == "hold" else FREE
    return {HOLD_TAG: held, EXPECTED_TAG: f"{sum(verdict.expected.values()):.4f}", SHARE_TAG: f"{verdict.share:.3f}"}


def write_down(parts: Parts, run: dg.DagsterRun, verdict: Verdict, *, actor: str, action: str) -> None:
    """Write a verdict into the audit log."""
    expected = {f"{tenant}/{model}": round(aed, 6) for (tenant, model), aed in verdict.expected.items()}
    detail = {"answer": verdict.answer, "sentence": verdict.sentence, "expected_aed": expected, "share": round(verdict.share, 6)}
    parts.audit.append(action, subject=f"run/{run.run_id}", actor=actor, detail={"job": run.job_name, **detail})


def held_runs(instance: dg.DagsterInstance) -> list[dg.DagsterRun]:
    """Return the runs that admission holds, oldest first."""
    held = dg.RunsFilter(statuses=[dg.DagsterRunStatus.QUEUED], tags={HOLD_TAG: HELD})
    return list(instance.get_runs(held, ascending=True))


def judge_again(instance: dg.DagsterInstance, run: dg.DagsterRun, parts: Parts) -> Verdict:
    """Judge a held run anew; let it go where it may go now, end it where it never may."""
    keys = planned_keys(planned_steps(instance, run))
    verdict = admission_of(parts).ask(run.run_id, keys, still_going=still_going(instance))
    if verdict.answer == "admit":
        instance.add_run_tags(run.run_id, verdict_tags(verdict))
        instance.report_engine_event(verdict.sentence, run)
        write_down(parts, run, verdict, actor="admission", action="admit")
    elif verdict.answer == "refuse":
        instance.report_run_canceled(run, message=verdict.sentence)
        write_down(parts, run, verdict, actor="admission", action="refuse")
    return verdict


def approve(instance: dg.DagsterInstance, run_id: str, parts: Parts, *, who: str | None = None) -> dg.DagsterRun:
    """Release a held run on a person's word; its cost is promised although it breaks a budget. StateError where none is held so.

    `run_id` may be the beginning of one. `who` is the user of this process when left out.
    """
    held = held_runs(instance)
    found = [run for run in held if run.run_id.startswith(run_id)]
    if len(found) != 1:
        names = ", ".join(run.run_id[:8] for run in held) or "none"
        raise StateError(f"{len(found)} held runs begin with {run_id!r}; held: {names}.")
    run, actor = found[0], who or pwd.getpwuid(os.getuid()).pw_name
    keys = planned_keys(planned_steps(instance, run))
    verdict = admission_of(parts).ask(run.run_id, keys, still_going=still_going(instance), approved=True)
    if verdict.answer == "refuse":
        raise StateError(f"Run {run.run_id[:8]} cannot be approved. {verdict.sentence}")
    write_down(parts, run, verdict, actor=actor, action="approve")
    instance.report_engine_event(f"Approved by {actor}. It had been: {verdict.sentence}", run)
    instance.add_run_tags(run.run_id, {**verdict_tags(verdict), HOLD_TAG: FREE, APPROVED_TAG: actor})
    return run
