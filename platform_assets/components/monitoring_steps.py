"""Steps that watch production: production_log, drift_report."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import dagster as dg

from platform_assets import keys
from platform_assets.components.drift_shown import show_drift
from platform_assets.components.retraining_evidence import REPORT_FILE, read_drift, read_feed
from platform_assets.components.service_watch import alert_service, check_service, watch_service
from platform_assets.components.step import Outcome, Step, build_check
from platform_assets.components.training_steps import scratch
from platform_assets.specs.dataset import DatasetSpec
from platform_assets.specs.feed import FeedReport
from platform_assets.specs.model import ModelSpec
from platform_assets.specs.record_json import to_json
from platform_assets.specs.records import DriftPointer, InForce, RolloutVerdict, TablePin
from platform_assets.stages.monitoring.feed_report import FEED_FILE

if TYPE_CHECKING:
    from resources.parts import Parts


def collect_log(model: ModelSpec, dataset: DatasetSpec, step: Step) -> Outcome:
    """Move closed segments of the server's log into Delta, then write the labels that became known beside their predictions."""
    from platform_assets.stages.monitoring.log import attach_labels

    parts = step.parts
    table = keys.table_name(keys.model_key(model.name, "production_log"))
    new = take_segments(model.name, parts)
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


def take_segments(model: str, parts: Parts) -> int:
    """Move closed segments of the server's log into the model's Delta table; return how many rows were new."""
    from platform_assets.stages.monitoring.log import parse_segments

    segments = parts.serving.rotate_log(model)
    if not segments:
        return 0
    new = parts.tables.append(keys.table_name(keys.model_key(model, "production_log")), parse_segments(segments), key="prediction_id")
    for segment in segments:
        segment.unlink(missing_ok=True)  # only after the commit: a kill before this line reads them again, and append skips what is there
    return new


def report_drift(model: ModelSpec, dataset: DatasetSpec, step: Step) -> Outcome:
    """Hold each new window of the log against a healthy feed, then against the training reference of the release that is live."""
    del dataset
    from threadpoolctl import threadpool_limits

    from platform_assets.stages.monitoring.feed_report import extend_feed, silence_faults
    from platform_assets.stages.monitoring.report import extend_report

    parts = step.parts
    key = keys.model_key(model.name, "drift_report")
    pin = step.read(keys.model_key(model.name, "production_log"), TablePin)
    live = step.read(keys.model_key(model.name, "rollout_verdict"), RolloutVerdict)
    pointer = step.find(key, DriftPointer)
    log, bundle = parts.tables.read(pin), parts.releases.open(live.live_digest)
    feed = extend_feed(read_feed(parts, pointer), log=log, bundle=bundle, model=model)
    with threadpool_limits(limits=1, user_api="blas"):  # of runs side by side the threads would spin while they wait for a core
        extended = extend_report(read_drift(parts, pointer), log=log, bundle=bundle, model=model, feed=feed)
    report = silence_faults(extended, feed)
    service = watch_service(model, parts, report.service, live=live, at=report.windows[-1].last_event if report.windows else "")
    told, report = len(report.service), replace(report, service=service)
    newest = report.windows[-1] if report.windows else None
    sentence = newest.evidence if newest else f"Fewer than {model.monitoring.window_rows} predictions so far: no window to judge."
    with scratch(step) as folder:
        (folder / REPORT_FILE).write_text(to_json(report))
        (folder / FEED_FILE).write_text(to_json(feed))
        digest = parts.artefacts.put(folder)
    fault = feed.now.sentence if feed.now else ""
    record = DriftPointer(digest, len(report.windows), newest is not None and newest.drifted, report.first_drifted_row, sentence, fault)
    checks = [
        build_check(key, "feed_is_healthy", passed=not fault, sentence=fault or _say_healthy(feed), faults=len(feed.faults)),
        build_check(
            key, "window_resembles_training", passed=not record.drifted, severity=dg.AssetCheckSeverity.WARN, sentence=sentence
        ),
        check_service(key, service),
    ]  # fmt: skip
    alert_service(model, parts, service[told:])
    return Outcome(record, digest, show_drift(model, step, report, feed), checks)


def _say_healthy(feed: FeedReport) -> str:
    return f"The newest of {feed.windows} windows is what the source meant to send." if feed.windows else "There is no window to judge yet."
