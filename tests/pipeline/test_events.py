"""Events through Dagster's own daemon: one event is one right run, and what happened goes out."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
from pipeline.tiny import DEFS, MODEL, TinyHome, wait_for
from typer.testing import CliRunner

from platform_assets import keys
from platform_assets.main_job import site
from platform_assets.specs.events import Event
from resources import processes
from resources.events import GROUP

pytestmark = pytest.mark.timeout(300)
DATASET = "tiny_bookings"


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[TinyHome]:
    """One model over a file that is not there: what an event launches fails at its first step, within seconds."""
    for kind, name in (("models", MODEL), ("datasets", DATASET)):
        text = (DEFS / kind / name / "defs.yaml").read_text()
        folder = tmp_path / "defs" / kind / name
        folder.mkdir(parents=True)
        (folder / "defs.yaml").write_text(re.sub("source: .*", f"source: {{kind: file, path: {tmp_path / 'nowhere.parquet'}}}", text))
    home = TinyHome(tmp_path / "home", defs=tmp_path / "defs")
    site.prepare(home.settings)
    try:
        yield home
    finally:
        home.end_everything()


def event(name: str, kind: str = "falaj.retraining.asked", **more) -> Event:
    told = {"id": name, "source": "/tests", "type": kind, "time": datetime.now(UTC), "data": {"model": MODEL}}
    return Event(**{**told, **more})


def tick(tiny: TinyHome, instance: dg.DagsterInstance, *, sensor: str = keys.INBOX_SENSOR, cursor: str | None = None):
    repository = tiny.repository()
    return repository.get_sensor_def(sensor).evaluate_tick(
        dg.build_sensor_context(instance=instance, repository_def=repository, cursor=cursor)
    )


def test_each_type_asks_for_its_own_job_and_is_answered_for_a_tick_later(tiny: TinyHome) -> None:
    inbox = tiny.parts.inbox
    inbox.publish(event("a", data={"model": MODEL, "why": "new season"}))
    inbox.publish(event("b", "falaj.data.landed", data={"dataset": DATASET}))
    inbox.publish(event("c", "falaj.labels.landed"))
    with tiny.instance() as instance:
        asked = tick(tiny, instance)
        assert [(one.job_name, one.run_key) for one in asked.run_requests] == [
            (keys.train_job(MODEL), "event:/tests#a"), (keys.refresh_job(DATASET), "event:/tests#b"), (keys.monitor_job(MODEL), "event:/tests#c"),
        ]  # fmt: skip
        assert asked.run_requests[0].tags["falaj/why"] == "new season"
        assert inbox.waiting(GROUP) == 3, "until the tick is written down they are held, not gone"
        assert tick(tiny, instance, cursor=asked.cursor).run_requests == []
    assert inbox.waiting(GROUP) == 0


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (event("x", data={"model": "nobody"}), "'nobody' is not declared"),
        (event("x", "falaj.data.landed", data={"dataset": "nothing"}), "'nothing' is not declared"),
        (event("x", time=datetime.now(UTC) - timedelta(days=8)), "older than 7 days"),
        (event("x", "falaj.approval.given", data={"run": "abc", "by": "me"}), "held runs begin with 'abc'"),
        (event("x", "falaj.release.made"), "goes out"),
        (event("x", "falaj.unheard.of"), "unknown"),
    ],
    ids=["model", "dataset", "late", "approval", "outgoing", "type"],
)
def test_an_event_that_cannot_be_acted_on_is_a_dead_letter_beside_good_ones(tiny: TinyHome, wrong: Event, said: str) -> None:
    tiny.parts.inbox.publish(wrong)
    tiny.parts.inbox.publish(event("good"))
    with tiny.instance() as instance:
        asked = tick(tiny, instance)
    assert [one.run_key for one in asked.run_requests] == ["event:/tests#good"]
    (letter,) = tiny.parts.inbox.dead(GROUP)
    assert said in letter.why
    assert [one["detail"]["why"] for one in tiny.parts.audit.entries(subject="events/inbox")] == [letter.why]


def test_what_the_audit_log_holds_goes_out_once_in_order(tiny: TinyHome) -> None:
    audit = tiny.parts.audit
    audit.append("launch", subject="run/1", actor="me", detail={})
    audit.append("release", subject=f"model/{MODEL}", actor="run/1", detail={"digest": "d1"})
    audit.append("retraining", subject=f"model/{MODEL}", actor="policy", detail={"trigger": "drift", "why": "moved"})
    audit.append("retraining", subject=f"model/{MODEL}", actor="policy", detail={"trigger": "new_rows", "why": "many"})
    audit.append("hold", subject="run/2", actor="admission", detail={"sentence": "too dear"})
    with tiny.instance() as instance:
        first = tick(tiny, instance, sensor=keys.OUTBOX_SENSOR)
        tick(tiny, instance, sensor=keys.OUTBOX_SENSOR)  # the cursor was lost: nothing is told twice
        audit.append("rollout", subject=f"model/{MODEL}", actor="run/1", detail={"outcome": "live"})
        tick(tiny, instance, sensor=keys.OUTBOX_SENSOR, cursor=first.cursor)
    told = [json.loads(one.body) for one in tiny.parts.outbox.claim("anyone")]
    assert [(one["type"], one["subject"]) for one in told] == [
        ("falaj.release.made", MODEL), ("falaj.drift.found", MODEL), ("falaj.budget.broken", "2"), ("falaj.rollout.decided", MODEL),
    ]  # fmt: skip
    assert told[0]["data"]["detail"] == {"digest": "d1"}


@pytest.mark.slow
def test_an_event_is_one_run_over_duplicates_and_a_killed_daemon(tiny: TinyHome, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in tiny.environment.items():
        monkeypatch.setenv(name, value)
    inbox = tiny.parts.inbox
    with tiny.instance() as instance:
        site.start_daemon(tiny.settings, tied=True)
        assert inbox.publish(event("one"))
        assert not inbox.publish(event("one"))
        wait_for(lambda: len(instance.get_runs()) == 1, seconds=120, what="the run of the event")
        processes.stop(tiny.home, site.DAEMON)
        inbox.publish(event("two"))
        site.start_daemon(tiny.settings, tied=True)
        wait_for(lambda: inbox.waiting(GROUP) == 0 and len(instance.get_runs()) == 2, seconds=120, what="both answered for")
        processes.stop(tiny.home, site.DAEMON)
        runs = instance.get_runs()
    assert {run.tags["falaj/event"] for run in runs} == {"/tests#one", "/tests#two"}
    assert {run.job_name for run in runs} == {keys.train_job(MODEL)}


def test_the_verbs_send_list_and_replay(tiny: TinyHome, monkeypatch: pytest.MonkeyPatch) -> None:
    from platform_assets.cli import app
    from platform_assets.errors import EventError

    for name, value in tiny.environment.items():
        monkeypatch.setenv(name, value)

    def falaj(*words: str) -> str:
        done = CliRunner().invoke(app, ["events", *words], catch_exceptions=False)
        assert done.exit_code == 0
        return done.stdout

    assert "waits in the inbox" in falaj("send", "falaj.retraining.asked", "model=nobody", "--id", "1")
    assert "had been sent before" in falaj("send", "falaj.retraining.asked", "model=nobody", "--id", "1")
    assert "1 events wait" in falaj("list")
    with tiny.instance() as instance:
        tick(tiny, instance)
    shown = falaj("list")
    assert "0 events wait" in shown
    assert "nobody" in shown
    token = tiny.parts.inbox.dead(GROUP)[0].token
    falaj("replay", token)
    assert "1 events wait" in falaj("list")
    tiny.parts.outbox.publish(event("out", "falaj.release.made"))
    assert json.loads(falaj("read"))["id"] == "out"
    assert falaj("read") == ""
    with pytest.raises(EventError, match="right would be one of"):
        CliRunner().invoke(app, ["events", "send", "falaj.release.made"], catch_exceptions=False)
    with pytest.raises(EventError, match="model"):
        CliRunner().invoke(app, ["events", "send", "falaj.retraining.asked"], catch_exceptions=False)
