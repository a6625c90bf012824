"""Steps from candidates to a bundle: selected, gate_verdict, release."""

from __future__ import annotations

import dagster as dg

from platform_assets import keys
from platform_assets.components.retraining_history import close_retraining
from platform_assets.components.step import Outcome, Step, build_check, fingerprint, picture
from platform_assets.components.training_steps import scratch
from platform_assets.logs import event
from platform_assets.specs.candidates import SearchResult, Selection
from platform_assets.specs.dataset import DatasetSpec
from platform_assets.specs.model import ModelSpec
from platform_assets.specs.records import GateVerdict, Release, RolloutVerdict, Training, TrainingSet
from platform_assets.tracing import traceparent
from resources.commit import find_commit
from resources.dagster_instance import gate

CODE_VERSION = "1"


def select_candidate(model: ModelSpec, dataset: DatasetSpec, step: Step) -> Outcome:
    """Choose the cheapest candidate on the Pareto front within the declared limits; keep why each other one was not chosen."""
    del dataset
    from platform_assets.stages.evaluation.pictures import draw_frontier
    from platform_assets.stages.release.selection import select

    result = step.read(keys.model_key(model.name, "candidates"), SearchResult)
    selection: Selection = select(result.candidates, result.rejected, metric=model.leading_metric, compression=model.compression)
    why = "\n".join(f"| {rejection.name} | {rejection.why} |" for rejection in selection.rejected)
    metadata = {
        "chosen": selection.chosen.name, "size_bytes": selection.chosen.size_bytes,
        model.leading_metric: selection.chosen.metrics[model.leading_metric],
        "rejected": dg.MetadataValue.md(f"| candidate | why not |\n|---|---|\n{why}"),
        "frontier": picture(draw_frontier(result.candidates, kind=model.target.kind, front=selection.front, chosen=selection.chosen.name)),
    }  # fmt: skip
    return Outcome(selection, fingerprint(selection), metadata)


def judge_gates(model: ModelSpec, dataset: DatasetSpec, step: Step) -> Outcome:
    """Hold the selected candidate against the declared bounds and against the champion on the same holdout."""
    from platform_assets.stages.release.gates import judge
    from platform_assets.stages.release.scoring import score_bundle

    parts = step.parts
    key = keys.model_key(model.name, "gate_verdict")
    selection = step.read(keys.model_key(model.name, "selected"), Selection)
    training_set = step.read(keys.model_key(model.name, "training_set"), TrainingSet)
    live = step.find(keys.model_key(model.name, "rollout_verdict"), RolloutVerdict)
    champion: dict[str, float] | None = None
    if live is not None and live.live_digest:
        champion = score_bundle(parts.releases.open(live.live_digest), parts.artefacts.path(training_set.digest), kind=model.target.kind)
    verdict: GateVerdict = judge(
        model.gates,
        found=selection.chosen.metrics,
        champion=champion,
        champion_version=live.live_digest[:12] if live and champion else None,
    )
    table = "\n".join(
        f"| {bound.metric} | {bound.bound} | {bound.found:.4f} | {'yes' if bound.holds else 'NO'} |" for bound in verdict.bounds
    )
    check = build_check(key, "gates_hold", passed=verdict.passed, sentence=verdict.sentence, severity=dg.AssetCheckSeverity.WARN)
    parts.audit.append(
        "gate",
        subject=f"model/{model.name}",
        actor=f"run/{step.context.run.run_id}",
        detail={"passed": verdict.passed, "sentence": verdict.sentence},
    )
    if not verdict.passed:
        close_retraining(parts, model.name, outcome="did_not_help", why=verdict.sentence, at=parts.clock.now(dataset.name))
    metadata = {
        "passed": verdict.passed,
        "verdict": verdict.sentence,
        "bounds": dg.MetadataValue.md(f"| gate | asked | found | holds |\n|---|---|---|---|\n{table}"),
    }
    return Outcome(verdict, fingerprint(verdict), metadata, [check])


def make_release(model: ModelSpec, dataset: DatasetSpec, step: Step) -> Outcome | None:
    """Write the content-addressed bundle, sign and encrypt it, register it; a refused candidate makes no release."""
    from platform_assets.stages.monitoring.feed_report import profile_feed
    from platform_assets.stages.monitoring.profile import profile_release
    from platform_assets.stages.release.bundle import write_bundle
    from resources.packages import installed_packages

    parts = step.parts
    verdict = step.read(keys.model_key(model.name, "gate_verdict"), GateVerdict)
    if not verdict.passed:
        step.say(f"No release: {verdict.sentence}")
        return None
    selection = step.read(keys.model_key(model.name, "selected"), Selection)
    training = step.read(keys.model_key(model.name, "trained"), Training)
    training_set = step.read(keys.model_key(model.name, "training_set"), TrainingSet)
    search = step.read(keys.model_key(model.name, "candidates"), SearchResult)
    candidate_dir, data_dir = parts.artefacts.path(selection.chosen.digest), parts.artefacts.path(training_set.digest)
    with scratch(step) as folder:
        write_bundle(
            folder, model=model, dataset=dataset, selection=selection, search=search, verdict=verdict, training=training,
            training_set=training_set, candidate_dir=candidate_dir, data_dir=data_dir, commit=find_commit(), spec_hash=fingerprint(model),
            profile=profile_release(model, model_file=candidate_dir / "model.onnx", data_dir=data_dir),
            feed=profile_feed(model, data_dir=data_dir), packages=installed_packages(),
        )  # fmt: skip
        digest = parts.releases.put(folder)
    bundle = parts.releases.path(digest)
    run_id = str(_mlflow_run(step, model))
    number = parts.registry.register(model.name, bundle, run_id=run_id, tags={"digest": digest, "candidate": selection.chosen.name})
    release = Release(model.name, digest[:12], digest, selection.chosen.name, number, selection.chosen.metrics, training_set.digest)
    parts.audit.append(
        "release",
        subject=f"model/{model.name}",
        actor=f"run/{step.context.run.run_id}",
        detail={
            "digest": digest,
            "mlflow_version": number,
            "keys": sorted(parts.releases.key_ids(digest)),
            "requester": gate.requester_of(step.context.run.tags),
            **({"trace": where} if (where := traceparent()) else {}),
        },
    )
    event(f"{model.name} {release.version} is released", version=release.version)
    card = parts.releases.open(digest)["model_card.md"].decode()
    metadata = {
        "version": release.version,
        "digest": digest,
        "mlflow_version": number,
        "candidate": release.candidate,
        "model_card": dg.MetadataValue.md(card),
        "bundle": dg.MetadataValue.path(str(bundle)),
    }
    return Outcome(release, digest, metadata)


def _mlflow_run(step: Step, model: ModelSpec) -> object:
    event = step.context.instance.get_latest_materialization_event(dg.AssetKey(keys.model_key(model.name, "trained")))
    return event.asset_materialization.metadata["mlflow_run"].value if event and event.asset_materialization else ""
