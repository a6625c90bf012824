"""Steps from a bundle to production: deployed, rollout_verdict. MLflow's aliases move only with a rollout verdict."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import dagster as dg

from platform_assets import keys
from platform_assets.components.monitoring_steps import close_retraining
from platform_assets.components.step import Outcome, Step, build_check, fingerprint
from platform_assets.specs.dataset import DatasetSpec
from platform_assets.specs.model import ModelSpec
from platform_assets.specs.records import ArmFigures, Release, RolloutVerdict, to_json

if TYPE_CHECKING:
    from platform_assets.stages.retraining.outcome import RetrainingOutcome

CODE_VERSION = "1"


def deploy_release(model: ModelSpec, dataset: DatasetSpec, step: Step) -> Outcome:
    """Bring the release to the inference server: shadow, canary, live, or back."""
    del dataset
    from platform_assets.stages.release.rollout import run_rollout

    parts = step.parts
    release = step.read(keys.model_key(model.name, "release"), Release)
    parts.registry.set_alias(model.name, "challenger", release.registry_version)
    verdict: RolloutVerdict = run_rollout(
        parts.serving,
        model.name,
        digest=release.digest,
        rollout=model.serving.rollout,
        sleep=time.sleep,
        monotonic=time.monotonic,
        report=step.say,
    )
    metadata = {
        "outcome": verdict.outcome,
        "live": verdict.live_digest[:12],
        "stages": dg.MetadataValue.md(" → ".join(verdict.stages)),
        "why": verdict.sentence,
    }
    return Outcome(verdict, fingerprint(verdict), metadata)


def record_rollout(model: ModelSpec, dataset: DatasetSpec, step: Step) -> Outcome:
    """State what became of the rollout with its samples; move champion and challenger accordingly."""
    parts = step.parts
    key = keys.model_key(model.name, "rollout_verdict")
    release = step.read(keys.model_key(model.name, "release"), Release)
    verdict = step.read(keys.model_key(model.name, "deployed"), RolloutVerdict)
    if verdict.outcome == "live":
        parts.registry.set_alias(model.name, "champion", release.registry_version)
    if verdict.outcome != "inconclusive":
        parts.registry.set_alias(model.name, "challenger", None)
    gain = _measure_gain(model, step, release=release, verdict=verdict)
    outcome = gain.outcome if gain else "helped" if verdict.outcome == "live" else "did_not_help"
    why = f"{verdict.sentence.rstrip('.')}; {gain.sentence}" if gain else verdict.sentence
    close_retraining(parts, model.name, outcome=outcome, why=why, at=parts.clock.now(dataset.name))
    proven = parts.serving.status(model.name).get("live") == verdict.live_digest
    parts.audit.append(
        "rollout",
        subject=f"model/{model.name}",
        actor=f"run/{step.context.run.run_id}",
        detail={"outcome": verdict.outcome, "live": verdict.live_digest, "why": verdict.sentence},
    )
    check = build_check(
        key,
        "live_version_is_proven_by_hash",
        passed=proven,
        sentence=f"The server answers with {verdict.live_digest[:12]}: {'yes' if proven else 'NO'}.",
    )
    arms = [arm for arm in (verdict.champion, verdict.challenger) if arm is not None]
    metadata = {
        "outcome": verdict.outcome, "verdict": verdict.sentence, "samples": dg.MetadataValue.md(_arms_table(arms)),
        "disagreement": verdict.disagreement, "compared_rows": verdict.compared_rows, "evidence": dg.MetadataValue.text(to_json(verdict)),
        **({"gain": gain.gain, "against_the_previous": gain.sentence} if gain else {}),
    }  # fmt: skip
    return Outcome(verdict, fingerprint(verdict), metadata, [check])


def _measure_gain(model: ModelSpec, step: Step, *, release: Release, verdict: RolloutVerdict) -> RetrainingOutcome | None:
    """Judge the new live release and the one that it replaced on the newest labelled holdout.

    None where nothing was replaced, or where the two read different features and cannot be compared.
    """
    from platform_assets.stages.release.scoring import score_bundle
    from platform_assets.stages.retraining.outcome import judge_outcome

    parts = step.parts
    releases = [entry["detail"]["digest"] for entry in parts.audit.entries(subject=f"model/{model.name}") if entry["action"] == "release"]
    replaced = next((digest for digest in releases if verdict.previous and digest.startswith(verdict.previous)), None)
    if verdict.outcome != "live" or replaced in (None, release.digest):
        return None
    holdout = parts.artefacts.path(release.training_set)
    before, after = (score_bundle(parts.artefacts.path(digest), holdout, kind=model.target.kind) for digest in (replaced, release.digest))
    if before is None or after is None:
        return None
    return judge_outcome(model.leading_metric, before=before[model.leading_metric], after=after[model.leading_metric])


def _arms_table(arms: list[ArmFigures]) -> str:
    rows = "\n".join(
        f"| {a.version} | {a.requests} | {a.rows} | {a.errors} | {a.latency_ms_p50:.3f} | {a.latency_ms_p99:.3f} |" for a in arms
    )
    return f"| version | requests | rows | errors | p50 ms | p99 ms |\n|---|---|---|---|---|---|\n{rows}"
