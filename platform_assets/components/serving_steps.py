"""Steps from a bundle to production: deployed, rollout_verdict. MLflow's aliases move only with a rollout verdict."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import dagster as dg

from platform_assets import keys
from platform_assets.components.newest_labels import read_newest_labels, watch_new_labels
from platform_assets.components.retraining_history import close_retraining
from platform_assets.components.step import Outcome, Step, build_check, fingerprint, picture
from platform_assets.components.training_steps import scratch
from platform_assets.specs.dataset import DatasetSpec
from platform_assets.specs.looks import LookLog
from platform_assets.specs.model import ModelSpec
from platform_assets.specs.record_json import read_record, to_json
from platform_assets.specs.records import ArmFigures, Release, RolloutVerdict

if TYPE_CHECKING:
    from platform_assets.stages.retraining.outcome import RetrainingOutcome

CODE_VERSION = "2"
LOOKS_FILE = "looks.json"


def deploy_release(model: ModelSpec, dataset: DatasetSpec, step: Step) -> Outcome | None:
    """Bring the release to the inference server: shadow, canary, live, or back; keep every look that decided it.

    One that needs a second person's word and has none stays where it is.
    """
    del dataset
    from platform_assets.stages.release.approval import second_person
    from platform_assets.stages.release.pictures import draw_looks
    from platform_assets.stages.release.rollout import Rollout

    parts = step.parts
    release = step.read(keys.model_key(model.name, "release"), Release)
    if model.governance.approval == "four-eyes":
        approver = second_person(parts.audit.entries(subject=f"model/{model.name}"), release.digest)
        if approver is None:
            step.say(f"Not deployed: it waits for a second person; `falaj approve {model.name}@{release.version}` is theirs to say.")
            return None
        step.say(f"Approved by {approver}.")
    parts.registry.set_alias(model.name, "challenger", release.registry_version)
    rollout = Rollout(
        parts.serving, model.name, model.serving.rollout, sleep=time.sleep, monotonic=time.monotonic, report=step.say,
        labelled=watch_new_labels(model, step, release=release),
    )  # fmt: skip
    verdict, looks = rollout.run(release.digest)
    metadata = {
        "outcome": verdict.outcome,
        "live": verdict.live_digest[:12],
        "stages": dg.MetadataValue.md(" → ".join(verdict.stages)),
        "why": verdict.sentence,
    }
    if looks is not None:
        with scratch(step) as folder:
            (folder / LOOKS_FILE).write_text(to_json(looks))
            verdict = replace(verdict, looks=parts.artefacts.put(folder))
        metadata |= {"looks": len(looks.looks), "evidence": picture(draw_looks(looks))}
    return Outcome(verdict, fingerprint(verdict), metadata)


def record_rollout(model: ModelSpec, dataset: DatasetSpec, step: Step) -> Outcome:
    """State what became of the rollout with its samples, and whether the retraining helped; move champion and challenger accordingly."""
    parts = step.parts
    key = keys.model_key(model.name, "rollout_verdict")
    release = step.read(keys.model_key(model.name, "release"), Release)
    verdict = step.read(keys.model_key(model.name, "deployed"), RolloutVerdict)
    if verdict.outcome == "live":
        parts.registry.set_alias(model.name, "champion", release.registry_version)
    if verdict.outcome != "inconclusive":
        parts.registry.set_alias(model.name, "challenger", None)
    gain = _measure_gain(model, step, release=release, verdict=verdict)
    word = _name_outcome(verdict, gain)
    why = f"{verdict.sentence.rstrip('.')}; {gain.sentence if gain else 'it could not be measured against another release'}"
    won = (gain.share if verdict.outcome == "live" else min(0.0, gain.share)) if gain else None  # rolled back: the champion won nothing
    close_retraining(parts, model.name, outcome=word, why=why, at=parts.clock.now(dataset.name), gain=won)
    found = parts.serving.status(model.name).get("live")
    proven = found == verdict.live_digest
    parts.audit.append(
        "rollout",
        subject=f"model/{model.name}",
        actor=f"run/{step.context.run.run_id}",
        detail={"outcome": verdict.outcome, "live": verdict.live_digest, "before": verdict.live_before, "why": verdict.sentence},
    )
    check = build_check(
        key,
        "live_version_is_proven_by_hash",
        passed=proven,
        sentence=f"The server answers with {verdict.live_digest[:12]}: {'yes' if proven else f'NO, with {str(found)[:12]}'}.",
        live_before=str(verdict.live_before), live_after=verdict.live_digest, live_now=str(found),
    )  # fmt: skip
    arms = [arm for arm in (verdict.champion, verdict.challenger) if arm is not None]
    metadata = {
        "outcome": verdict.outcome, "verdict": verdict.sentence, "samples": dg.MetadataValue.md(_arms_table(arms)),
        "disagreement": verdict.disagreement, "compared_rows": verdict.compared_rows, "evidence": dg.MetadataValue.text(to_json(verdict)),
        "retraining": word, **({"gain": gain.gain, "against_the_previous": gain.sentence} if gain else {}),
        **_looks_metadata(step, verdict),
    }  # fmt: skip
    return Outcome(verdict, fingerprint(verdict), metadata, [check])


def _looks_metadata(step: Step, verdict: RolloutVerdict) -> dict[str, Any]:
    """What a person sees of the looks: the picture, and each stage's last one."""
    from platform_assets.stages.release.pictures import draw_looks, write_looks_table

    if verdict.looks is None:
        return {}
    looks = read_record(LookLog, (step.parts.artefacts.path(verdict.looks) / LOOKS_FILE).read_bytes())
    return {"looks": dg.MetadataValue.md(write_looks_table(looks)), "looks_picture": picture(draw_looks(looks))}


def _name_outcome(verdict: RolloutVerdict, gain: RetrainingOutcome | None) -> str:
    """Say what became of the retraining: what was rolled back changed nothing, what went live or waits is what was measured."""
    if verdict.outcome == "rolled_back":
        return "did_not_help"
    return gain.outcome if gain else "undecided"


def _measure_gain(model: ModelSpec, step: Step, *, release: Release, verdict: RolloutVerdict) -> RetrainingOutcome | None:
    """Judge the release and the one that was live before it on the newest labelled rows.

    None where there was none, or where the two read different features and cannot be compared.
    """
    from platform_assets.stages.release.scoring import answer_rows
    from platform_assets.stages.retraining.outcome import Answers, judge_outcome

    if verdict.live_before in (None, release.digest):
        return None
    rows = read_newest_labels(model, step, release=release)
    found = [answer_rows(step.parts.releases.open(str(digest)), rows) for digest in (verdict.live_before, release.digest)]
    if found[0] is None or found[1] is None:
        return None
    return judge_outcome(Answers(*found[0]), Answers(*found[1]), kind=model.target.kind, least_gain=model.retraining.least_gain)


def _arms_table(arms: list[ArmFigures]) -> str:
    rows = "\n".join(
        f"| {a.version} | {a.requests} | {a.rows} | {a.errors} | {a.latency_ms_p50:.3f} | {a.latency_ms_p99:.3f} |" for a in arms
    )
    return f"| version | requests | rows | errors | p50 ms | p99 ms |\n|---|---|---|---|---|---|\n{rows}"
