"""A broken feed through the real graph: seen by the monitor job, blocks whoever asks, is told, and no training set reads its rows."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pipeline.tiny import DATASET, MODEL, Finished, TinyHome
from rich.console import Console

from platform_assets import keys
from platform_assets.components.retraining_evidence import read_feed
from platform_assets.components.step import key_of, latest_record
from platform_assets.main_job import policy_verbs, site
from platform_assets.main_job.jobs import Jobs
from platform_assets.main_job.progress import Bars
from platform_assets.specs.outcomes import RetrainingOutcomeRecord
from platform_assets.specs.records import DriftPointer, RetrainingVerdict, TablePin, TrainingSet
from resources.outbox import Outbox

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
BROKEN_ROWS = 200
BEHIND = 30  # rows behind the last full window: nobody has judged their feed
WINDOW = 200


@pytest.fixture
def tiny(finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TinyHome]:
    """A copy of the home that the main job left, its server running."""
    shutil.copytree(finished.tiny.home.root, tmp_path / "home")
    home = TinyHome(tmp_path / "home", webhook_url="http://127.0.0.1:9/")
    for name, value in {**home.environment, "DAGSTER_HOME": str(home.home.instance)}.items():
        monkeypatch.setenv(name, value)
    site.prepare(home.settings)
    site.start_server(home.settings, tied=True)
    try:
        yield home
    finally:
        home.end_everything()


def test_a_unit_change_in_a_few_rows_blocks_retraining_is_told_and_never_learnt_from(tiny: TinyHome) -> None:
    parts = tiny.parts
    _send_broken_rows(tiny)
    policy_verbs.ask_for_retraining(tiny.settings, MODEL, because="the prices look odd", trigger="person")
    with tiny.instance() as instance:
        jobs = Jobs(instance, tiny.repository(), Bars(Console(quiet=True)), parts)
        protected = latest_record(instance, keys.dataset_key(DATASET, "protected"), TablePin)
        jobs.run(keys.monitor_job(MODEL))
        pointer = latest_record(instance, keys.model_key(MODEL, "drift_report"), DriftPointer)
        verdict = latest_record(instance, keys.model_key(MODEL, "retraining_verdict"), RetrainingVerdict)
        outcome = latest_record(instance, keys.model_key(MODEL, "retraining_outcome"), RetrainingOutcomeRecord)
        check = dg.AssetCheckKey(key_of(keys.model_key(MODEL, "drift_report")), "feed_is_healthy")
        (found,) = instance.event_log_storage.get_latest_asset_check_execution_by_key([check]).values()
        job = tiny.repository().get_job(keys.train_job(MODEL))
        made = job.execute_in_process(instance=instance, asset_selection=[key_of(keys.model_key(MODEL, "training_set"))])
        after = latest_record(instance, keys.model_key(MODEL, "training_set"), TrainingSet)

    (fault,) = read_feed(parts, pointer).faults
    assert fault.kinds == ("unit change",)
    assert (verdict.asked, verdict.blocked, pointer.drifted) == (False, "data_at_fault", False)
    assert (outcome.outcome, outcome.sentence) == ("data_at_fault", verdict.sentence)
    evaluation = found.event.dagster_event.asset_check_evaluation_data
    assert (evaluation.passed, evaluation.severity) == (False, dg.AssetCheckSeverity.ERROR)
    assert evaluation.description == fault.sentence == pointer.feed_fault

    light = json.loads((tiny.home.serving / "drift.json").read_text())[MODEL]
    assert (light["light"], light["sentence"]) == ("red", fault.sentence)
    assert "nothing is learnt from their rows" in (tiny.home.reports / f"drift-{MODEL}.html").read_text()
    assert f'falaj_drift_faulty_windows{{model="{MODEL}"}} 1.0' in (tiny.home.metrics / f"drift_{MODEL}.prom").read_text()
    assert [notice.severity for notice in Outbox(tiny.home.notices).due("webhook", now=1e12)] == ["error"]

    assert made.success
    rows = parts.tables.read(protected, columns=["booking_id", "is_canceled"])
    labelled = set(rows.filter(rows["is_canceled"].is_valid())["booking_id"].to_pylist())
    assert labelled >= set(fault.keys), "their labels are known: but for the fault they would be learnt from"
    log = parts.tables.read(parts.tables.pin(keys.table_name(keys.model_key(MODEL, "production_log"))))
    unfilled = log.sort_by([(name, "ascending") for name in ("event_time", "time", "prediction_id")])["key"].to_pylist()
    unfilled = set(unfilled[len(unfilled) // WINDOW * WINDOW :])
    assert len(unfilled) >= BEHIND
    assert labelled >= unfilled, "their labels are known: but that no window of them is full they would be learnt from"
    assert _keys(tiny, after) == labelled - set(fault.keys) - unfilled
    assert set(json.loads((parts.artefacts.path(after.left_out) / "left_out.json").read_text())) == unfilled | set(fault.keys)


def _send_broken_rows(tiny: TinyHome) -> None:
    """As if the newest bookings had been asked for again a year later, some of their prices in another currency."""
    parts, table = tiny.parts, keys.table_name(keys.model_key(MODEL, "production_log"))
    log = parts.tables.read(parts.tables.pin(table)).sort_by("event_time")
    rows = log.slice(log.num_rows - BROKEN_ROWS - BEHIND).to_pylist()
    rows = rows[BEHIND:] + rows[:BEHIND]
    for place, row in enumerate(rows):
        row["prediction_id"] = f"broken-{place}"
        row["event_time"] += timedelta(days=365 if place < BROKEN_ROWS else 800)
        if place % 12 == 0:
            inputs = json.loads(row["inputs"])
            row["inputs"] = json.dumps({**inputs, "adr": 100 * (inputs["adr"] or 50.0)})
    parts.tables.append(table, pa.Table.from_pylist(rows, schema=log.schema), key="prediction_id")


def _keys(tiny: TinyHome, record: TrainingSet) -> set[str]:
    folder = tiny.parts.artefacts.path(record.digest)
    return {str(key) for part in record.rows for key in pq.read_table(folder / part, columns=["booking_id"])["booking_id"].to_pylist()}
