"""The drift report as a step, over a real release and a log: its windows over an erasure, how the release is served, what is shown and told."""

from __future__ import annotations

import json
import shutil
from datetime import datetime, timedelta
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
from threadpoolctl import threadpool_info

from platform_assets import keys
from platform_assets.answers import open_model
from platform_assets.components.monitoring_steps import report_drift
from platform_assets.components.retraining_evidence import read_drift, read_feed
from platform_assets.manifests import MANIFEST_FILE, list_files
from platform_assets.specs.model import ModelSpec
from platform_assets.specs.record_json import to_json
from platform_assets.specs.records import DriftPointer, RolloutVerdict
from platform_assets.stages.monitoring import report
from platform_assets.stages.monitoring.feed import remember_feed
from platform_assets.stages.monitoring.feed_report import feed_columns
from platform_assets.stages.monitoring.profile import Profile
from platform_assets.stages.monitoring.reference import build_reference
from resources.settings import Home
from resources.testing.artifacts import MemoryArtifactStore
from resources.testing.keys import open_releases
from resources.testing.live_metrics import MemoryMetrics
from resources.testing.serving import TINY_SCHEMA, MemoryServing, write_tiny_release
from resources.testing.state import MemoryAuditLog, RecordingNotifier
from resources.testing.tables import MemoryTableStore

ROWS = 100
MODEL = ModelSpec.model_validate({
    "name": "m", "owner": "team:a", "purpose": "Predict y for the tests", "dataset": "d", "features": {"views": ["v"]},
    "target": {"column": "is_canceled", "kind": "binary"}, "training": {"architecture": "tabular_mlp"},
    "monitoring": {"window_rows": ROWS, "season": "year"},
})  # fmt: skip
KEY = tuple(keys.model_key("m", "drift_report"))


def bookings(count, *, seed):
    random = np.random.default_rng(seed)
    return pa.table({
        "lead_time": random.uniform(0, 300, count), "adr": random.uniform(20, 300, count),
        "arrival_date": pa.array([datetime(2016, 7, 1)] * count, pa.timestamp("us")),
        "market_segment": random.choice(["Online TA", "Direct"], count), "mean_adr_90d": random.uniform(50, 150, count),
        "booking_date": pa.array([datetime(2026, 1, 1) + timedelta(minutes=at) for at in range(count)], pa.timestamp("us")),
    })  # fmt: skip


def as_log(rows, answers):
    names = [feature.name for feature in TINY_SCHEMA.features]
    texts = [
        json.dumps({name: row[name].isoformat() if name == "arrival_date" else row[name] for name in names}) for row in rows.to_pylist()
    ]
    count = rows.num_rows
    ids = [f"r{at:05}" for at in range(count)]
    return pa.table({
        "prediction_id": ids, "key": ids, "version": ["v"] * count, "time": rows["booking_date"], "event_time": rows["booking_date"],
        "inputs": texts, "probabilities": answers.tolist(), "actual": pa.array([None] * count, pa.string()),
    })  # fmt: skip


@pytest.fixture
def world(tmp_path):
    home = Home(tmp_path / "home")
    releases, artefacts, tables = open_releases(home), MemoryArtifactStore(tmp_path / "artefacts"), MemoryTableStore()
    folder, train = tmp_path / "release", bookings(10 * ROWS, seed=1)
    write_tiny_release(folder, model="m", seed=1)
    answer, asked = open_model(folder / "model.onnx", schema=TINY_SCHEMA), bookings(5 * ROWS, seed=2)
    reference = build_reference(train, schema=TINY_SCHEMA, probabilities=answer(train), spec=MODEL.monitoring)
    feed = remember_feed(*[feed_columns(train, schema=TINY_SCHEMA)[0]], window_rows=ROWS, categories=["market_segment"])
    importance = {feature.name: 0.2 for feature in TINY_SCHEMA.features}
    for name, text in {
        "profile.json": to_json(Profile(reference, importance)), "feed.json": to_json(feed), "metrics.json": '{"holdout": {"auroc": 0.9}}',
    }.items():  # fmt: skip
        (folder / name).write_text(text)
    (folder / MANIFEST_FILE).unlink()
    (folder / MANIFEST_FILE).write_text(json.dumps({"model": "m", "candidate": "tiny", "files": list_files(folder)}))
    digest = releases.put(folder)
    shutil.rmtree(folder)
    serving = MemoryServing({digest})
    serving.load("m", digest)
    serving.set_traffic("m", live=digest)
    parts = SimpleNamespace(
        tables=tables, releases=releases, artefacts=artefacts, serving=serving, notifier=RecordingNotifier(), audit=MemoryAuditLog(),
        live_metrics=MemoryMetrics(), settings=SimpleNamespace(home=home),
    )  # fmt: skip
    verdict = RolloutVerdict("live", digest[:12], None, digest, ("live",), None, None, 0.0, 0, "it is live")
    records = {tuple(keys.model_key("m", "rollout_verdict")): verdict}

    def look(log):
        name = keys.table_name(keys.model_key("m", "production_log"))
        tables.replace(name, log)
        records[tuple(keys.model_key("m", "production_log"))] = tables.pin(name)
        step = SimpleNamespace(parts=parts, read=lambda key, _: records[tuple(key)], find=lambda key, _: records.get(tuple(key)))
        made = report_drift(MODEL, SimpleNamespace(name="d"), step)
        records[KEY] = made.record
        return made

    return SimpleNamespace(look=look, parts=parts, digest=digest, home=home, pointer=lambda: records[KEY], log=as_log(asked, answer(asked)))


def test_a_report_grows_by_whole_windows_over_an_erasure_and_tells_how_the_release_is_served(world):
    log = world.log
    world.parts.serving.count("m", world.digest, requests=600, latency_ms=2.0)
    first = world.look(log.slice(0, 2 * ROWS + 50))
    assert isinstance(first.record, DriftPointer)
    assert first.record.windows == 2
    assert {check.check_name: check.passed for check in first.checks} == {
        "feed_is_healthy": True, "window_resembles_training": True, "service_is_as_released": True
    }  # fmt: skip
    kept = pa.concat_tables([log.slice(30, 170), log.slice(200, 300)])  # 30 rows of the first window are erased
    world.parts.serving.count("m", world.digest, requests=600, latency_ms=40.0)
    second = world.look(kept)
    assert second.record.windows == 5
    windows = read_drift(world.parts, world.pointer()).windows
    assert [window.first_row for window in windows] == [0, 100, 200, 300, 400]
    assert windows[2].first_event == str(log["event_time"][200].as_py()), "no row behind the erased ones was skipped"
    feed = read_feed(world.parts, world.pointer())
    assert (feed.windows, len(feed.ends), feed.faults) == (5, 5, ())
    assert not second.checks[2].passed
    assert [message.key for message in world.parts.notifier.messages] == [f"m/service/{world.digest[:12]}/latency_p99"]
    shown = world.parts.live_metrics.shown["drift_m"]
    assert 'falaj_service_regressed{model="m",what="latency_p99"' in shown
    page = (world.home.reports / "drift-m.html").read_text()
    assert "How it is served" in page
    assert json.loads((world.home.serving / "drift.json").read_text())["m"]["light"] == "amber"


def test_matrices_are_multiplied_by_one_thread_so_that_runs_side_by_side_do_not_wait_for_each_other(world, monkeypatch):
    extend, seen = report.extend_report, set()

    def watch(*given, **named):
        seen.update(pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas")
        return extend(*given, **named)

    monkeypatch.setattr(report, "extend_report", watch)
    before = threadpool_info()
    assert world.look(world.log.slice(0, ROWS)).record.windows == 1
    assert seen == {1}
    assert threadpool_info() == before, "whatever comes next in this process has its own number"
