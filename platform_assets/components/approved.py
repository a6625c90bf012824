"""What follows a second person's word: the sensor that lets an approved release go on to its deployment."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import dagster as dg

from platform_assets import keys
from platform_assets.components.jobs import MODEL_TAG
from platform_assets.components.step import key_of, latest_record
from platform_assets.manifests import VERSION_DIGITS
from platform_assets.specs.records import Release, RolloutVerdict
from platform_assets.stages.release.approval import second_person

if TYPE_CHECKING:
    from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

    from resources.parts import Parts

_TICK_SECONDS = 10
_GOES_ON = ("deployed", "rollout_verdict", "retraining_outcome")


def build_approved_sensor(parts: Parts, jobs: list[UnresolvedAssetJobDefinition]) -> dg.SensorDefinition | None:
    """Build the sensor; None where no declaration asks for a second person."""
    waiting = [name for name, model in parts.catalogue.models.items() if model.governance.approval == "four-eyes"]
    if not waiting:
        return None

    @dg.sensor(
        name=keys.APPROVED_SENSOR,
        description="A release that a second person approved is deployed.",
        jobs=jobs,
        minimum_interval_seconds=_TICK_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
    )
    def release_approved(context: dg.SensorEvaluationContext) -> Iterator[dg.RunRequest]:
        """Ask once a digest: it is the run key, so that no restart and no second tick deploys twice. The step reads the log itself."""
        for model in waiting:
            release = latest_record(context.instance, keys.model_key(model, "release"), Release)
            if release is None or _is_deployed(context.instance, model, release.digest) or _is_busy(context.instance, model):
                continue
            if second_person(parts.audit.entries(subject=f"model/{model}"), release.digest) is not None:
                yield dg.RunRequest(
                    run_key=f"{model}:{release.digest}", job_name=keys.train_job(model), tags={"falaj/trigger": "approval"},
                    asset_selection=[key_of(keys.model_key(model, state)) for state in _GOES_ON],
                )  # fmt: skip

    return release_approved


def _is_deployed(instance: dg.DagsterInstance, model: str, digest: str) -> bool:
    """Whether the rollout of this release, live or not, has its verdict."""
    verdict = latest_record(instance, keys.model_key(model, "deployed"), RolloutVerdict)
    return verdict is not None and verdict.version == digest[:VERSION_DIGITS]


def _is_busy(instance: dg.DagsterInstance, model: str) -> bool:
    """Whether a run of this model is under way: it reads the approval itself when it comes to the deployment, or the next tick follows."""
    going = [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.QUEUED]
    return bool(instance.get_runs(dg.RunsFilter(job_name=keys.train_job(model), tags={MODEL_TAG: model}, statuses=going), limit=1))
