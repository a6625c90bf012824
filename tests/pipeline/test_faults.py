"""Servers that go away in the middle, and runs that are killed: what goes on, and what says so. `falaj bench faults` does more, for longer."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pyarrow as pa
import pytest
from pipeline.tiny import DEFS, MODEL, TinyHome, wait_for
from postgres_process import find_programs

from platform_assets import keys
from platform_assets.errors import StateError
from platform_assets.main_job import site
from platform_assets.main_job.bench.fault_servers import Postgres, Store
from platform_assets.specs.events import Event
from platform_assets.specs.team import StoreSpec
from resources import processes
from resources.audit import PostgresAuditLog
from resources.audit_signature import HeadSigner
from resources.dagster_instance.warm_launcher import PROCESS_TAG
from resources.delta_tables import DeltaTableStore
from resources.ledger import open_ledger
from resources.s3 import S3
from resources.s3_artifacts import S3ArtifactStore

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def postgres_alone() -> Iterator[Postgres]:
    """A server that a test may stop."""
    if find_programs() is None:
        pytest.skip("no PostgreSQL server on this machine: install Debian's package postgresql")
    server = Postgres()
    try:
        server.start()
        yield server
    finally:
        server.remove()


def test_a_run_goes_on_over_a_postgresql_that_is_killed_in_the_middle_of_it(postgres_alone: Postgres, tmp_path: Path) -> None:
    url = postgres_alone.url
    (tmp_path / "dagster.yaml").write_text(f"telemetry: {{enabled: false}}\nstorage: {{postgres: {{postgres_url: '{url}'}}}}\n")
    audit, ledger = PostgresAuditLog(url, signer=HeadSigner(tmp_path / "keys")), open_ledger(url)

    def restart() -> None:
        postgres_alone.stop()
        time.sleep(1)  # long enough that somebody asks meanwhile
        postgres_alone.start()

    @dg.asset
    def made(context) -> None:
        audit.append("before", subject="made", actor="x", detail={})
        with ledger.measure(model="m", stage="s", run_id=context.run_id):
            away = threading.Thread(target=restart)
            away.start()
            time.sleep(0.5)
            context.log.info("said while it is away")
            away.join()
        audit.append("after", subject="made", actor="x", detail={})

    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        done = dg.materialize([made], instance=instance, raise_on_error=False)
        assert done.success
        assert instance.get_run_by_id(done.run_id).status is dg.DagsterRunStatus.SUCCESS
        assert any("said while it is away" in (entry.user_message or "") for entry in instance.all_logs(done.run_id))
    assert audit.verify() == 2
    assert [total["model"] for total in ledger.totals()] == ["m"]


def test_a_store_that_answers_500_for_a_while_is_waited_for_and_one_that_goes_on_so_is_told(tmp_path: Path) -> None:
    server = Store(tmp_path / "store")
    try:
        server.start()
        spec = StoreSpec(url=server.url, endpoint=server.endpoint, credentials=server.credentials)
        artefacts, tables = S3ArtifactStore(S3(spec), cache=tmp_path / "cache"), DeltaTableStore("tables", store=S3(spec))
        (tmp_path / "made").mkdir()
        (tmp_path / "made" / "weights").write_text("w")
        server.be("500")
        threading.Timer(1.0, server.be, ["ok"]).start()
        digest = artefacts.put(tmp_path / "made")
        server.be("500")
        threading.Timer(1.0, server.be, ["ok"]).start()
        pin = tables.replace("t", pa.table({"id": ["a"]}))
        assert tables.read(pin)["id"].to_pylist() == ["a"]
        server.be("500")
        with pytest.raises(
            StateError, match=r"the store s3://falaj/team at http://127.0.0.1:\d+ could not be used: .*InternalError"
        ) as told:
            S3ArtifactStore(S3(spec, tries=1), cache=tmp_path / "cache").recall("work")
        assert "\n" not in str(told.value)
        server.be("ok")
        assert S3ArtifactStore(S3(spec), cache=tmp_path / "another").path(digest).joinpath("weights").read_text() == "w"
    finally:
        server.stop()


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[TinyHome]:
    """One model over a file that nobody has written to yet: a run waits for it in its first step."""
    os.mkfifo(tmp_path / "bookings.csv")
    for kind, name in (("models", MODEL), ("datasets", "tiny_bookings")):
        text = (DEFS / kind / name / "defs.yaml").read_text()
        (tmp_path / "defs" / kind / name).mkdir(parents=True)
        source = f"source: {{kind: file, path: {tmp_path / 'bookings.csv'}}}"
        (tmp_path / "defs" / kind / name / "defs.yaml").write_text(re.sub("source: .*", source, text))
    home = TinyHome(tmp_path / "home", defs=tmp_path / "defs")
    site.prepare(home.settings)
    instance = home.home.instance / "dagster.yaml"
    instance.write_text(instance.read_text().replace("poll_interval_seconds: 15", "poll_interval_seconds: 1"))
    try:
        yield home
    finally:
        home.end_everything()


@pytest.mark.slow
def test_a_run_that_was_killed_goes_on_in_another_and_one_whose_step_failed_does_not(
    tiny: TinyHome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in tiny.environment.items():
        monkeypatch.setenv(name, value)
    data = {"model": MODEL}
    with tiny.instance() as instance:
        site.start_daemon(tiny.settings, tied=True)
        tiny.parts.inbox.publish(Event(id="1", source="/tests", type="falaj.retraining.asked", time=datetime.now(UTC), data=data))

        def begun() -> dg.DagsterRun | None:
            (run, *_) = [*instance.get_runs(), None]
            waits = run and instance.all_logs(run.run_id, of_type=dg.DagsterEventType.STEP_START)
            return run if waits else None

        wait_for(begun, seconds=120, what="the first step")
        killed = begun()
        (tmp_path / "bookings.csv").unlink()  # what goes on finds no file, and says so
        os.kill(int(killed.tags[PROCESS_TAG].partition(":")[0]), signal.SIGKILL)
        wait_for(lambda: len(instance.get_runs()) == 2, seconds=90, what="the run that goes on")
        wait_for(lambda: all("dagster/will_retry" in run.tags for run in instance.get_runs()), seconds=90, what="its end")
        after, before = instance.get_runs()
        processes.stop(tiny.home, site.DAEMON)
    assert (before.run_id, after.parent_run_id) == (killed.run_id, killed.run_id)
    assert (before.tags["dagster/will_retry"], after.tags["dagster/will_retry"]) == ("true", "false")
    assert after.tags["falaj/event"] == before.tags["falaj/event"]
    assert after.tags[PROCESS_TAG] != before.tags[PROCESS_TAG]
    assert {run.job_name for run in (before, after)} == {keys.train_job(MODEL)}
