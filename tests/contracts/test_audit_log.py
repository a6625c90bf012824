"""What every audit log promises, and what the SQLite one finds when somebody writes behind its back."""

import signal
import sqlite3
import subprocess
import sys
import time

import pytest

from platform_assets.errors import StateError
from resources.audit import SqliteAuditLog, hash_entry
from resources.testing.state import MemoryAuditLog


@pytest.fixture(params=["sqlite", "memory"])
def log(request, tmp_path):
    return SqliteAuditLog(tmp_path / "state.sqlite") if request.param == "sqlite" else MemoryAuditLog()


def test_entries_come_back_in_order_with_their_detail(log):
    hashes = [
        log.append(action, subject=subject, actor="falaj", detail={"n": n})
        for n, (action, subject) in enumerate([("a", "m"), ("b", "k"), ("c", "m")])
    ]
    assert [entry["action"] for entry in log.entries()] == ["a", "b", "c"]
    assert [(entry["action"], entry["detail"]) for entry in log.entries(subject="m")] == [("a", {"n": 0}), ("c", {"n": 2})]
    assert [entry["hash"] for entry in log.entries()] == hashes
    assert log.verify() == 3


def test_an_empty_log_holds(log):
    assert log.verify() == 0
    assert log.entries() == []


def test_each_entry_names_the_one_before_it(log):
    first = log.append("a", subject="m", actor="x", detail={})
    log.append("b", subject="m", actor="x", detail={})
    assert log.entries()[1]["previous"] == first


@pytest.fixture
def written(tmp_path):
    path = tmp_path / "state.sqlite"
    log = SqliteAuditLog(path)
    for n in range(5):
        log.append(f"step {n}", subject="m", actor="falaj", detail={"n": n})
    return path, log


def behind_its_back(path, *statements):
    connection = sqlite3.connect(path)
    for trigger in ("audit_no_update", "audit_no_delete", "audit_at_end"):
        connection.execute(f"DROP TRIGGER {trigger}")
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()


@pytest.mark.parametrize("statement", ["UPDATE audit SET actor = 'me' WHERE seq = 3", "DELETE FROM audit WHERE seq = 3", "DELETE FROM audit_head",
                                       "INSERT OR REPLACE INTO audit SELECT seq, at, action, subject, 'me', detail, previous, hash FROM audit WHERE seq = 3"])  # fmt: skip
def test_the_database_itself_refuses_to_change_an_entry(written, statement):
    connection = sqlite3.connect(written[0])
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        connection.execute(statement)
    connection.close()


@pytest.mark.parametrize(
    ("statement", "place"),
    [
        ("UPDATE audit SET actor = 'me' WHERE seq = 3", r"entry 3 \(step 2\) was altered"),
        ("UPDATE audit SET at = '2020-01-01T00:00:00.000000+00:00' WHERE seq = 1", r"entry 1 \(step 0\) was altered"),
        ("UPDATE audit SET hash = '00' WHERE seq = 5", r"entry 5 \(step 4\) was altered"),
        ("DELETE FROM audit WHERE seq = 2", "entry 2 is missing"),
        ("DELETE FROM audit WHERE seq = 1", "entry 1 is missing"),
        ("DELETE FROM audit WHERE seq > 3", "entry 4 is missing, the log was cut after entry 3 of 5"),
        ("DELETE FROM audit", "entry 1 is missing, the log was cut after entry 0 of 5"),
        (
            "INSERT INTO audit SELECT seq + 1, at, action, subject, actor, detail, hash, hash FROM audit WHERE seq = 5",
            r"entry 6 \(step 4\) was altered",
        ),
    ],
)
def test_a_change_behind_its_back_is_found_and_its_place_named(written, statement, place):
    path, log = written
    behind_its_back(path, statement)
    with pytest.raises(StateError, match=place):
        log.verify()


def test_two_entries_that_changed_places_are_found(written):
    path, log = written
    behind_its_back(
        path, "UPDATE audit SET seq = 99 WHERE seq = 2", "UPDATE audit SET seq = 2 WHERE seq = 3", "UPDATE audit SET seq = 3 WHERE seq = 99"
    )
    with pytest.raises(StateError, match="entry 2"):
        log.verify()


def test_an_entry_forged_with_a_fitting_hash_breaks_the_one_after_it(written):
    path, log = written
    forged = {**log.entries()[2], "actor": "me", "detail": '{"n":2}'}
    behind_its_back(path, f"UPDATE audit SET actor = 'me', hash = '{hash_entry(forged)}' WHERE seq = 3")
    with pytest.raises(StateError, match=r"entry 4 \(step 3\) does not follow"):
        log.verify()


_APPEND = (
    "import sys, pathlib; from resources.audit import SqliteAuditLog\n"
    "log = SqliteAuditLog(pathlib.Path(sys.argv[1])); print('go', flush=True)\n"
    "for n in range(int(sys.argv[2])): log.append('a', subject='m', actor=sys.argv[3], detail={'n': n})\n"
)


def start(path, count, actor):
    process = subprocess.Popen([sys.executable, "-c", _APPEND, str(path), str(count), actor], stdout=subprocess.PIPE)
    process.stdout.readline()
    process.stdout.close()
    return process


def test_two_processes_that_append_at_once_make_one_chain(tmp_path):
    path = tmp_path / "state.sqlite"
    assert [process.wait() for process in [start(path, 60, "one"), start(path, 60, "two")]] == [0, 0]
    log = SqliteAuditLog(path)
    assert log.verify() == 120
    assert sum(entry["actor"] == "one" for entry in log.entries()) == 60


def test_a_kill_between_entries_leaves_a_chain_that_holds_and_goes_on(tmp_path):
    path = tmp_path / "state.sqlite"
    for delay in (0.05, 0.12, 0.2):
        process = start(path, 10**6, "one")
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.wait()
    log = SqliteAuditLog(path)
    length = log.verify()
    log.append("after", subject="m", actor="two", detail={})
    assert log.verify() == length + 1
