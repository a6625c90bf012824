"""Engines and connections that stay for Dagster's SQLite files."""

from __future__ import annotations

import os
import sqlite3
from functools import partial
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.test_utils import create_run_for_test
from sqlalchemy import Engine, text
from sqlalchemy.pool import NullPool

from resources.dagster_instance.engines import Engines, _asked_once, _is_shared, keep_engines


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "some.db"
    make(path, 1)
    return path


def make(path: Path, value: int) -> None:
    with sqlite3.connect(path) as made:
        made.execute("CREATE TABLE t (value INTEGER)")
        made.execute("INSERT INTO t VALUES (?)", (value,))
    made.close()


def take(engines: Engines, file: Path) -> Engine:
    return engines.take(f"sqlite:///{file}", poolclass=NullPool, connect_args={"timeout": 60})


def ask(engine: Engine) -> tuple[int, int]:
    """What the table holds, and which connection says so; the engine is disposed of afterwards, as Dagster does."""
    with engine.connect() as connection:
        found = connection.execute(text("SELECT value FROM t")).scalar_one(), id(connection.connection.driver_connection)
    engine.dispose()
    return found


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_file_keeps_its_engine_and_its_connection(file: Path) -> None:
    engines = Engines()
    assert take(engines, file) is take(engines, file)
    assert ask(take(engines, file)) == ask(take(engines, file))


def test_a_file_that_was_replaced_is_read_anew(file: Path) -> None:
    engines = Engines()
    first = take(engines, file)
    assert ask(first)[0] == 1
    beside = file.with_name("beside.db")
    make(beside, 2)
    beside.replace(file)
    assert ask(take(engines, file))[0] == 2


def test_a_file_that_is_not_made_yet_is_not_kept(tmp_path: Path) -> None:
    engines = Engines()
    assert take(engines, tmp_path / "later.db") is not take(engines, tmp_path / "later.db")


def test_the_oldest_of_many_files_is_closed(tmp_path: Path) -> None:
    engines, files = Engines(), [tmp_path / f"{number}.db" for number in range(40)]
    before = open_files()
    for number, path in enumerate(files):
        make(path, number)
        assert ask(take(engines, path))[0] == number
    assert open_files() - before <= 16
    assert ask(take(engines, files[0]))[0] == 0


def test_a_fork_takes_none_of_its_parents_connections(file: Path) -> None:
    engines = Engines()
    theirs = take(engines, file)
    ask(theirs)
    child = os.fork()
    if child == 0:
        ours = take(engines, file)
        os._exit(0 if ours is not theirs and ask(ours)[0] == 1 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert take(engines, file) is theirs


def test_a_runs_own_log_alone_is_not_brought_to_the_disk_with_each_line(tmp_path: Path) -> None:
    engines = Engines()

    def level(name: str) -> int:
        make(tmp_path / name, 1)
        take = partial(engines.take, synced=_is_shared) if "log" in name else engines.take
        engine = take(f"sqlite:///{tmp_path / name}", poolclass=NullPool)
        with engine.connect() as connection:
            return int(connection.execute(text("PRAGMA synchronous")).scalar_one())

    (tmp_path / "log").mkdir()
    normal, full = 1, 2
    assert level(f"log/{'1' * 32}.db") == normal
    assert level("log/index.db") == full
    assert level("runs.db") == full


def test_what_a_schema_has_is_asked_until_the_answer_is_yes() -> None:
    class Storage:
        tables: tuple[str, ...] = ()
        asked = 0

        def has_table(self, name: str) -> bool:
            self.asked += 1
            return name in self.tables

        remembered = _asked_once(has_table)

    one, other = Storage(), Storage()
    assert [one.remembered("runs"), one.remembered("runs")] == [False, False]
    one.tables = ("runs",)
    assert [one.remembered("runs") for _ in range(5)] == [True] * 5
    assert [one.remembered("other"), other.remembered("runs")] == [False, False], "one storage's yes about one thing is no other's"
    assert (one.asked, other.asked) == (4, 1)


def test_an_instance_on_kept_engines_reads_what_one_on_dagsters_own_wrote_and_the_other_way_round(tmp_path: Path) -> None:
    home = tmp_path / "instance"
    home.mkdir()
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    child = os.fork()
    if child == 0:  # in a process of its own, since the storages are its own from now on
        keep_engines()
        keep_engines()
        with dg.DagsterInstance.from_config(str(home)) as instance:
            create_run_for_test(instance, job_name="kept", run_id="1" * 32)
            instance.report_runless_asset_event(dg.AssetMaterialization("made", metadata={"rows": 7}))
            instance.report_engine_event("said", instance.get_run_by_id("1" * 32))
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    with dg.DagsterInstance.from_config(str(home)) as instance:
        assert [run.job_name for run in instance.get_runs()] == ["kept"]
        found = instance.get_latest_materialization_event(dg.AssetKey("made"))
        assert found is not None
        assert found.asset_materialization is not None
        assert found.asset_materialization.metadata["rows"].value == 7
        assert [one.message for one in instance.all_logs("1" * 32)] == ["said"]
