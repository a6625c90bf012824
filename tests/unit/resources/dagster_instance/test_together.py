"""Batches of Dagster's events in SQLite: the same rows as one by one, all of a batch or none."""

from __future__ import annotations

import os
import signal
import sqlite3
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pytest
from dagster._core.storage.event_log.sqlite.sqlite_event_log import SqliteEventLogStorage
from kill_points import was_killed

from resources.dagster_instance import together
from resources.variables import STEADY

NAMES = ("one", "other")
RUN = "1" * 32
QUERIES = {
    "index": (
        "SELECT dagster_event_type, asset_key, step_key, partition FROM event_logs ORDER BY 1, 2, 3",
        "SELECT asset_key, last_run_id FROM asset_keys ORDER BY 1",
        "SELECT asset_key, check_name, run_id, execution_status FROM asset_check_executions ORDER BY 1, 2",
    ),
    RUN: ("SELECT dagster_event_type, asset_key, step_key FROM event_logs ORDER BY 1, 2, 3",),
}


def plan() -> dg.JobDefinition:
    """A job of two assets with a check each, whose events are planned when a run of it is made."""

    def build(name: str) -> dg.AssetsDefinition:
        @dg.asset(name=name, check_specs=[dg.AssetCheckSpec("is_good", asset=name)])
        def made():  # type: ignore[no-untyped-def]
            yield dg.Output(1)
            yield dg.AssetCheckResult(passed=True)

        return made

    return dg.Definitions(assets=[build(name) for name in NAMES], jobs=[dg.define_asset_job("all")]).get_repository_def().get_job("all")


def rows(home: Path) -> dict[str, list[list[Any]]]:
    found = {}
    for shard, queries in QUERIES.items():
        with sqlite3.connect(home / "history" / "runs" / f"{shard}.db") as file:
            found[shard] = [file.execute(query).fetchall() for query in queries]
        file.close()
    return found


def start(home: Path) -> None:
    home.mkdir()
    with dg.instance_for_test(temp_dir=str(home)) as instance:
        instance.create_run_for_job(plan(), run_id=RUN)


@pytest.fixture
def patched(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in STEADY.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(SqliteEventLogStorage, "store_event_batch", together._store_event_batch)


def test_what_is_written_together_is_what_is_written_one_by_one(tmp_path: Path, patched: None) -> None:
    start(tmp_path / "together")
    with pytest.MonkeyPatch.context() as one_by_one:
        one_by_one.delenv("DAGSTER_EVENT_BATCH_SIZE")
        start(tmp_path / "apart")
    found = rows(tmp_path / "together")
    assert found == rows(tmp_path / "apart")
    assert [len(table) for table in found["index"]] == [4, 2, 2], "two assets and two checks are planned"


def test_a_batch_that_cannot_be_written_leaves_nothing_and_dagster_writes_it_one_by_one(
    tmp_path: Path, patched: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, seen = SqliteEventLogStorage.store_event, list[int]()

    def fail_once(storage: SqliteEventLogStorage, event: Any) -> None:
        seen.append(len(seen))
        if len(seen) == 3:
            raise sqlite3.OperationalError("database or disk is full")
        store(storage, event)

    monkeypatch.setattr(SqliteEventLogStorage, "store_event", fail_once)
    start(tmp_path / "home")
    assert len(seen) == 3 + 4
    assert [len(table) for table in rows(tmp_path / "home")["index"]] == [4, 2, 2], "nothing twice"


def test_a_process_that_is_killed_within_a_batch_leaves_none_of_it(tmp_path: Path, patched: None) -> None:
    def work() -> None:
        store, seen = SqliteEventLogStorage.store_event, list[int]()

        def die(storage: SqliteEventLogStorage, event: Any) -> None:
            store(storage, event)
            seen.append(1)
            if len(seen) == 3:
                os.kill(os.getpid(), signal.SIGKILL)

        SqliteEventLogStorage.store_event = die  # type: ignore[method-assign]
        start(tmp_path / "home")

    assert was_killed(work)
    found = rows(tmp_path / "home")
    assert found["index"] == [[], [], []]
    assert found[RUN] == [[]]


def test_events_of_several_runs_are_stored_one_by_one() -> None:
    stored: list[Any] = []
    events: list[Any] = [SimpleNamespace(run_id=run) for run in "ab"]
    together._store_event_batch(SimpleNamespace(store_event=stored.append), events)  # type: ignore[arg-type]
    assert stored == events
