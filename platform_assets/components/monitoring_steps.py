"""Steps after production: production_log, drift_report, retraining_verdict."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

import dagster as dg

from platform_assets import keys
from platform_assets.components.step import Outcome, Step, build_check, fingerprint, picture
from platform_assets.components.training_steps import scratch
from platform_assets.specs.dataset import DatasetSpec
from platform_assets.specs.model import ModelSpec
from platform_assets.specs.records import (
    DriftPointer,
    DriftReport,
    InForce,
    RetrainingVerdict,
    RolloutVerdict,
    TablePin,
    TrainingSet,
    read_record,
    to_json,
)

if TYPE_CHECKING:
    from platform_assets.stages.retraining.policy import Outcome as Result
    from platform_assets.stages.retraining.policy import PastRetraining
    from resources.parts import Parts

REPORT_FILE = "report.json"
ASKED, ANSWERED = "retraining", "retraining_outcome"


def collect_log(model: ModelSpec, dataset: DatasetSpec, step: Step) -> Outcome:
    """Move closed segments of the server's log into Delta, then write the labels that became known beside their predictions."""
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
    good = step.find(keys.dataset_key(dataset.name, "validated"), InForce)
    labelled = 0
    if good is not None and dataset.label is not None:
        outcomes = parts.tables.read(good.pin, columns=[dataset.key, dataset.label.column])
        found = attach_labels(parts.tables.read(pin), outcomes, key=dataset.key, label=dataset.label.column)
        if found.num_rows:
            _, labelled = parts.tables.merge(table, found, key="prediction_id")
            pin = parts.tables.pin(table) or pin
    counts = parts.serving.log_counts(model.name)
    metadata = {
        "dagster/row_count": pin.rows, "rows_new": new, "labels_new": labelled, "delta_version": pin.version,
        "rows_answered": counts.accepted, "rows_lost": counts.lost, "rows_dropped": counts.dropped,
        "missing": f"{counts.missing} of {counts.accepted} answered rows are not in the log: {counts.lost} went with killed servers, "
        f"{counts.dropped} did not fit into memory or onto the disk",
    }  # fmt: skip
    return Outcome(pin, pin.content_hash, metadata)


def read_drift(parts: Parts, pointer: DriftPointer | None) -> DriftReport:
    """Return the whole report behind a pointer; an empty one where there is none."""
    return read_record(DriftReport, (parts.artefacts.path(pointer.digest) / REPORT_FILE).read_bytes()) if pointer else DriftReport(())


def report_drift(model: ModelSpec, dataset: DatasetSpec, step: Step) -> Outcome:
    """Hold each new window of the log against the training reference of the release that is live."""
    del dataset
    from platform_assets.stages.monitoring.pictures import draw_drift, draw_performance
    from platform_assets.stages.monitoring.report import extend_report

    parts = step.parts
    key = keys.model_key(model.name, "drift_report")
    pin = step.read(keys.model_key(model.name, "production_log"), TablePin)
    live = step.read(keys.model_key(model.name, "rollout_verdict"), RolloutVerdict)
    before = read_drift(parts, step.find(key, DriftPointer))
    report = extend_report(before, log=parts.tables.read(pin), bundle=parts.releases.open(live.live_digest), model=model)
    newest = report.windows[-1] if report.windows else None
    sentence = newest.evidence if newest else f"Fewer than {model.monitoring.window_rows} predictions so far: no window to judge."
    with scratch(step) as folder:
        (folder / REPORT_FILE).write_text(to_json(report))
        digest = parts.artefacts.put(folder)
    record = DriftPointer(digest, len(report.windows), newest is not None and newest.drifted, report.first_drifted_row, sentence)
    metadata: dict[str, Any] = {"windows": record.windows, "evidence": sentence, "first_drifted_row": str(record.first_drifted_row)}
    if report.windows:
        metadata["drift"] = picture(draw_drift(report.windows))
    if any(window.value is not None for window in report.performance):
        metadata["performance"] = picture(draw_performance(report.performance, decisions={}))
    check = build_check(key, "window_resembles_training", passed=not record.drifted, severity=dg.AssetCheckSeverity.WARN, sentence=sentence)
    return Outcome(record, digest, metadata, [check])


def decide_retraining(model: ModelSpec, dataset: DatasetSpec, step: Step) -> Outcome:
    """Ask for a retraining or not, by declaration, evidence and the data's clock."""
    from platform_assets.stages.retraining.policy import Evidence, decide

    parts = step.parts
    report = read_drift(parts, step.read(keys.model_key(model.name, "drift_report"), DriftPointer))
    trained_on = step.read(keys.model_key(model.name, "training_set"), TrainingSet)
    rows = step.find(keys.dataset_key(dataset.name, "protected"), TablePin)
    new_rows = (rows.rows if rows else 0) - trained_on.dataset.rows
    verdict: RetrainingVerdict = decide(
        Evidence(report.windows, report.performance, new_rows),
        history=past_retrainings(parts, model.name), now=parts.clock.now(dataset.name), spec=model.retraining,
    )  # fmt: skip
    if verdict.asked:
        detail = {"verdict_id": verdict.verdict_id, "trigger": verdict.trigger, "at": verdict.decided_at, "why": verdict.sentence}
        parts.audit.append(ASKED, subject=f"model/{model.name}", actor="policy", detail=detail)
        parts.notifier.notify(f"{model.name}: retraining asked", verdict.sentence, severity="warning")
    metadata = {
        "asked": verdict.asked, "trigger": verdict.trigger, "verdict": verdict.sentence, "decided_at": verdict.decided_at,
        "evidence": dg.MetadataValue.json(verdict.evidence),
    }  # fmt: skip
    return Outcome(verdict, fingerprint(verdict), metadata)


def past_retrainings(parts: Parts, model: str) -> list[PastRetraining]:
    """Return every retraining that was asked for, oldest first, with what came of it, from the audit log."""
    from platform_assets.stages.retraining.policy import PastRetraining

    entries = parts.audit.entries(subject=f"model/{model}")
    outcomes = {entry["detail"]["verdict_id"]: entry["detail"] for entry in entries if entry["action"] == ANSWERED}
    past = []
    for entry in entries:
        if entry["action"] != ASKED:
            continue
        asked, answer = entry["detail"], outcomes.get(entry["detail"]["verdict_id"])
        finished = datetime.fromisoformat(answer["at"]) if answer else None
        outcome: Result = answer["outcome"] if answer else "pending"
        past.append(PastRetraining(asked["verdict_id"], asked["trigger"], datetime.fromisoformat(asked["at"]), outcome, finished))
    return past


def close_retraining(parts: Parts, model: str, *, outcome: str, why: str, at: datetime) -> None:
    """Write what became of the retraining that is under way; nothing where none is."""
    for past in past_retrainings(parts, model):
        if past.outcome == "pending":
            detail = {"verdict_id": past.verdict_id, "outcome": outcome, "why": why, "at": at.isoformat(timespec="seconds")}
            parts.audit.append(ANSWERED, subject=f"model/{model}", actor="policy", detail=detail)
