"""Dagster's own daemon on a real instance: it asks once per verdict, whatever is restarted, and failures reach people."""

from __future__ import annotations

import json
import re
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import dagster as dg
import pytest
from pipeline.tiny import DEFS, MODEL, TinyHome, wait_for

from platform_assets import keys
from platform_assets.components.retraining_history import ASKED, past_retrainings
from platform_assets.components.step import RECORD, key_of
from platform_assets.main_job import site
from platform_assets.specs.record_json import to_json
from platform_assets.specs.records import Release, RetrainingVerdict, RolloutVerdict, TablePin, TrainingSet
from resources import processes

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
ASKS, QUIET, GROWS, WAITS = "asks", "quiet", "grows", "waits"
DIGEST = "d" * 64
RELEASE = Release(WAITS, DIGEST[:12], DIGEST, "int8", "1", {}, "t")
NO_FILE = "bookings_that_nobody_brought.parquet"


@dataclass
class Receiver:
    """Takes what the webhook is told."""

    messages: list[dict[str, str]] = field(default_factory=list)
    url: str = ""

    def serve(self) -> ThreadingHTTPServer:
        told = self.messages

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                told.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: object) -> None: ...

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{server.server_port}/"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return server


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    found = Receiver()
    server = found.serve()
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def tiny(tmp_path: Path, receiver: Receiver) -> Iterator[TinyHome]:
    """Four models over a file that is not there, one of them under four eyes: what the sensors launch fails at its first step, within seconds."""
    for name in (ASKS, QUIET, GROWS, WAITS):
        text = (DEFS / "models" / MODEL / "defs.yaml").read_text().replace(f"name: {MODEL}", f"name: {name}")
        if name == WAITS:
            text = text.rstrip() + "\n  governance: {approval: four-eyes}\n"
        _write(
            tmp_path / "defs" / "models" / name,
            text.replace("retraining: {", "retraining: {on_new_rows: 100, " if name == GROWS else "retraining: {"),
        )
    dataset = (DEFS / "datasets" / "tiny_bookings" / "defs.yaml").read_text()
    _write(
        tmp_path / "defs" / "datasets" / "tiny_bookings",
        re.sub("source: .*", f"source: {{kind: file, path: {tmp_path / NO_FILE}}}", dataset),
    )
    home = TinyHome(tmp_path / "home", defs=tmp_path / "defs", webhook_url=receiver.url)
    site.prepare(home.settings)
    try:
        yield home
    finally:
        home.end_everything()


def test_one_verdict_is_one_run_over_many_ticks_and_a_restart(tiny: TinyHome, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in tiny.environment.items():
        monkeypatch.setenv(name, value)
    audit = tiny.parts.audit
    with tiny.instance() as instance:
        site.start_daemon(tiny.settings, tied=True)
        # Dagster's failure sensor tells of what fails after its first look; the other sensors' first look may be before that one's.
        wait_for(lambda: _ticks(instance, keys.FAILURE_SENSOR), seconds=90, what="the first look at failed runs")
        _report(instance, keys.model_key(ASKS, "retraining_verdict"), _verdict("a1", asked=True))
        _report(instance, keys.model_key(QUIET, "retraining_verdict"), _verdict("q1", asked=False))
        _grow(instance, trained_on=1000, now=1150)
        _report(instance, keys.model_key(WAITS, "release"), RELEASE)
        audit.append("release", subject=f"model/{WAITS}", actor="run/1", detail={"digest": DIGEST, "requester": "amal"})
        audit.append("release_approved", subject=f"model/{WAITS}", actor="amal", detail={"digest": DIGEST})  # who asked: no second person
        audit.append(
            ASKED, subject=f"model/{ASKS}", actor="policy", detail={"verdict_id": "a1", "trigger": "drift", "at": "2024-01-01T00:00:00"}
        )

        wait_for(lambda: _ended(instance) == {ASKS: 1, GROWS: 1}, seconds=120, what="two failed runs")
        ticks = _ticks(instance)
        wait_for(lambda: _ticks(instance) >= ticks + 2, seconds=60, what="two more ticks")
        assert _launched(instance) == {ASKS: 1, GROWS: 1}
        wait_for(lambda: len(receiver.messages) >= 2, seconds=60, what="two messages")
        wait_for(lambda: past_retrainings(tiny.parts, ASKS)[0].outcome == "failed", seconds=30, what="the outcome of the retraining")
        assert processes.stop(tiny.home, site.DAEMON)
        assert tiny.names() == []

        site.start_daemon(tiny.settings, tied=True)
        ticks = _ticks(instance)
        wait_for(lambda: _ticks(instance) >= ticks + 2, seconds=90, what="two ticks after the restart")
        assert _launched(instance) == {ASKS: 1, GROWS: 1}, "a restart asks nobody again"

        _report(instance, keys.model_key(QUIET, "retraining_verdict"), _verdict("q2", asked=True))
        audit.append("release_approved", subject=f"model/{WAITS}", actor="badr", detail={"digest": DIGEST})
        wait_for(
            lambda: _ended(instance) == {ASKS: 1, GROWS: 1, QUIET: 1, WAITS: 1},
            seconds=90,
            what="the runs of the new verdict and the approval",
        )
        runs = instance.get_runs()
        processes.stop(tiny.home, site.DAEMON)

    assert {run.tags["falaj/trigger"] for run in runs} == {"drift", "new_rows", "approval"}
    assert {message["severity"] for message in receiver.messages} == {"error"}
    assert any(ASKS in message["title"] for message in receiver.messages)
    launches = [entry for entry in audit.entries() if entry["action"] == "launch"]
    asked = {keys.DRIFT_SENSOR: 2, keys.NEW_ROWS_SENSOR: 1, keys.APPROVED_SENSOR: 1}
    assert Counter(entry["actor"] for entry in launches) == asked
    (deployment,) = [run for run in runs if run.tags["falaj/trigger"] == "approval"]
    assert {key.path[-1] for key in deployment.asset_selection or ()} == {"deployed", "rollout_verdict", "retraining_outcome"}
    assert audit.verify() == len(audit.entries())
    assert tiny.names() == []


def test_an_approved_release_is_asked_for_once_and_never_while_its_model_is_busy_or_has_its_verdict(tiny: TinyHome) -> None:
    def asked() -> list[str | None]:
        context = dg.build_sensor_context(instance=instance, repository_def=tiny.repository())
        return [request.run_key for request in sensor.evaluate_tick(context).run_requests]

    subject = f"model/{WAITS}"
    audit = tiny.parts.audit
    with tiny.instance() as instance:
        sensor = tiny.repository().get_sensor_def(keys.APPROVED_SENSOR)
        assert asked() == []
        _report(instance, keys.model_key(WAITS, "release"), RELEASE)
        audit.append("release", subject=subject, actor="run/1", detail={"digest": DIGEST, "requester": "amal"})
        audit.append("release_approved", subject=subject, actor="amal", detail={"digest": DIGEST})
        audit.append("release_approved", subject=subject, actor="badr", detail={"digest": "e" * 64})
        assert asked() == []
        audit.append("release_approved", subject=subject, actor="badr", detail={"digest": DIGEST})
        assert asked() == [f"{WAITS}:{DIGEST}"]
        verdict = RolloutVerdict("live", DIGEST[:12], None, DIGEST, (), None, None, 0.0, 0, "it went live")
        _report(instance, keys.model_key(WAITS, "deployed"), verdict)
        assert asked() == []


def test_too_few_new_rows_ask_for_nothing(tiny: TinyHome) -> None:
    with tiny.instance() as instance:
        _grow(instance, trained_on=1000, now=1099)
        sensor = tiny.repository().get_sensor_def(keys.NEW_ROWS_SENSOR)
        asked = sensor.evaluate_tick(dg.build_sensor_context(instance=instance, repository_def=tiny.repository()))
        assert asked.run_requests == []
        _grow(instance, trained_on=1000, now=1100)
        asked = sensor.evaluate_tick(dg.build_sensor_context(instance=instance, repository_def=tiny.repository()))
    assert [request.job_name for request in asked.run_requests] == [keys.train_job(GROWS)]


def _write(folder: Path, text: str) -> None:
    folder.mkdir(parents=True)
    (folder / "defs.yaml").write_text(text)


def _verdict(verdict_id: str, *, asked: bool) -> RetrainingVerdict:
    return RetrainingVerdict(asked, "drift" if asked else "none", "window 3 drifted", verdict_id, "2024-01-01T00:00:00")


def _grow(instance: dg.DagsterInstance, *, trained_on: int, now: int) -> None:
    before = TablePin("dataset/tiny_bookings/protected", 0, trained_on, "0" * 64)
    _report(instance, keys.model_key(GROWS, "training_set"), TrainingSet("0" * 64, {}, before, {}, "2024-01-01", "2024-02-01"))
    _report(instance, keys.dataset_key("tiny_bookings", "protected"), TablePin(before.table, 1, now, f"{now:064d}"))


def _report(instance: dg.DagsterInstance, key: list[str], record: object) -> None:
    """As if the asset had been made with this record."""
    value = dg.MetadataValue.json(json.loads(to_json(record)))
    instance.report_runless_asset_event(dg.AssetMaterialization(key_of(key), metadata={RECORD: value}))


def _launched(instance: dg.DagsterInstance) -> Counter[str]:
    return Counter(run.tags["falaj/model"] for run in instance.get_runs())


def _ended(instance: dg.DagsterInstance) -> Counter[str]:
    return Counter(run.tags["falaj/model"] for run in instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE])))


def _ticks(instance: dg.DagsterInstance, sensor: str = keys.DRIFT_SENSOR) -> int:
    states = [state for state in instance.all_instigator_state() if state.instigator_name == sensor]
    return sum(len(instance.get_ticks(state.instigator_origin_id, state.selector_id)) for state in states)
