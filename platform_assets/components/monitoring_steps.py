"""Steps after production: production_log, drift_report, retraining_verdict."""

from __future__ import annotations

import dagster as dg

from platform_assets import keys
from platform_assets.components.step import Outcome, Step, build_check, fingerprint, picture
from platform_assets.specs.dataset import DatasetSpec
from platform_assets.specs.model import ModelSpec
from platform_assets.specs.records import DriftReport, InForce, Release, RetrainingVerdict, RolloutVerdict, TablePin, TrainingSet

CODE_VERSION = "1"


def collect_log(model: ModelSpec, dataset: DatasetSpec, step: Step) -> Outcome:
    """Move closed segments of the server's log into Delta, then add the labels that became known."""
    from platform_assets.stages.monitoring.log import attach_labels, parse_segments

    parts = step.parts
    table = keys.table_name(keys.model_key(model.name, "production_log"))
    segments = parts.serving.rotate_log(model.name)
    new = 0
    if segments:
        new = parts.tables.append(table, parse_segments(segments), key="prediction_id")
        for segment in segments:
            segment.unlink()  # only after the commit: a kill before this line reads them again, and append skips what is there
    pin = parts.tables.pin(table)
    if pin is None:
        raise dg.Failure(f"{model.name} has answered no request yet: there is no production log.", allow_retries=False)
    labelled = 0
    good = step.find(keys.dataset_key(dataset.name, "validated"), InForce)
    if good is not None and dataset.label is not None:
        known = parts.tables.read(good.pin, columns=[dataset.key, dataset.label.column])
        waiting = attach_labels(parts.tables.read(pin), known, key=dataset.key, label=dataset.label.column)
        if waiting.num_rows:
            _, labelled = parts.tables.merge(table, waiting, key="prediction_id")
            pin = parts.tables.pin(table) or pin
    metadata = {"dagster/row_count": pin.rows, "rows_new": new, "labels_new": labelled, "delta_version": pin.version}
    return Outcome(pin, pin.content_hash, metadata)


def report_drift(model: ModelSpec, dataset: DatasetSpec, step: Step) -> Outcome:
    """Hold each new window of the log against the training reference of the release that is live."""
    del dataset
    from platform_assets.stages.monitoring.pictures import draw_drift
    from platform_assets.stages.monitoring.report import extend_report

    parts = step.parts
    key = keys.model_key(model.name, "drift_report")
    pin = step.read(keys.model_key(model.name, "production_log"), TablePin)
    live = step.read(keys.model_key(model.name, "rollout_verdict"), RolloutVerdict)
    report: DriftReport = extend_report(
        step.find(key, DriftReport),
        log=parts.tables.read(pin),
        bundle=parts.artefacts.path(live.live_digest),
        digest=live.live_digest,
        model=model,
    )
    newest = report.windows[-1] if report.windows else None
    sentence = newest.evidence if newest else f"Fewer than {model.monitoring.window_rows} predictions so far: no window to judge."
    check = build_check(
        key,
        "window_resembles_training",
        passed=newest is None or not newest.drifted,
        severity=dg.AssetCheckSeverity.WARN,
        sentence=sentence,
    )
    metadata: dict[str, object] = {
        "windows": len(report.windows),
        "evidence": sentence,
        "first_drifted_row": report.first_drifted_row if report.first_drifted_row is not None else "none",
    }
    if report.windows:
        metadata["drift"] = picture(draw_drift(report.windows))
    return Outcome(report, fingerprint(report), metadata, [check])


def decide_retraining(model: ModelSpec, dataset: DatasetSpec, step: Step) -> Outcome:
    """Ask for a retraining or not, by declaration, evidence and the data's clock."""
    from platform_assets.stages.retraining.policy import decide

    parts = step.parts
    key = keys.model_key(model.name, "retraining_verdict")
    report = step.read(keys.model_key(model.name, "drift_report"), DriftReport)
    past = [entry["detail"] for entry in parts.audit.entries(subject=f"model/{model.name}") if entry["action"] == "retraining"]
    trained_on = step.read(keys.model_key(model.name, "training_set"), TrainingSet)
    rows = step.find(keys.dataset_key(dataset.name, "protected"), TablePin)
    verdict: RetrainingVerdict = decide(
        report, past=past, last=step.find(key, RetrainingVerdict), now=parts.clock.now(dataset.name), spec=model.retraining,
        new_rows=(rows.rows if rows else 0) - trained_on.dataset.rows,
    )  # fmt: skip
    metadata = {
        "asked": verdict.asked,
        "trigger": verdict.trigger,
        "verdict": verdict.sentence,
        "decided_at": verdict.decided_at,
        "evidence": dg.MetadataValue.json(verdict.evidence),
    }
    release = step.find(keys.model_key(model.name, "release"), Release)
    if verdict.asked:
        parts.audit.append(
            "retraining",
            subject=f"model/{model.name}",
            actor="policy",
            detail={
                "verdict_id": verdict.verdict_id,
                "trigger": verdict.trigger,
                "at": verdict.decided_at,
                "release": release.version if release else "",
            },
        )
        parts.notifier.notify(f"{model.name}: retraining asked", verdict.sentence, severity="warning")
    return Outcome(verdict, fingerprint(verdict), metadata)
