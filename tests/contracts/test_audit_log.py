"""What every audit log promises, and what those in a database find when somebody writes behind their back."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import psycopg2
import pytest
from postgres_process import own_database

from platform_assets.errors import StateError
from platform_assets.stages.training.heartbeat import connect_postgresql
from resources.audit import GENESIS, PostgresAuditLog, SqliteAuditLog, hash_entry
from resources.audit_signature import HeadSigner
from resources.testing.state import MemoryAuditLog


def open_log(path):
    return SqliteAuditLog(path, signer=HeadSigner(path.parent / "keys"))


def open_postgres_log(dsn, tmp_path):
    return PostgresAuditLog(dsn, signer=HeadSigner(tmp_path / "keys"))


@pytest.fixture(params=["sqlite", "postgres", "memory"])
def log(request, tmp_path):
    if request.param == "postgres":
        return open_postgres_log(own_database(request.getfixturevalue("postgres")), tmp_path)
    return open_log(tmp_path / "state.sqlite") if request.param == "sqlite" else MemoryAuditLog()


def test_entries_come_back_in_order_with_their_detail(log):
    hashes = [
        log.append(action, subject=subject, actor="falaj", detail={"n": n})
        for n, (action, subject) in enumerate([("a", "m"), ("b", "k"), ("c", "m")])
    ]
    assert [entry["action"] for entry in log.entries()] == ["a", "b", "c"]
    assert [(entry["action"], entry["detail"]) for entry in log.entries(subject="m")] == [("a", {"n": 0}), ("c", {"n": 2})]
    assert [entry["hash"] for entry in log.entries()] == hashes
    assert log.verify() == 3


def test_a_log_goes_on_from_its_checkpoints(log):
    empty = log.checkpoint()
    log.append("a", subject="m", actor="x", detail={})
    checkpoint = log.checkpoint()
    log.append("b", subject="m", actor="x", detail={})
    log.check_checkpoint(empty)
    log.check_checkpoint(checkpoint)
    assert checkpoint["length"] == 1
    with pytest.raises(StateError):
        log.check_checkpoint({**checkpoint, "hash": "0" * 64})


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
    log = open_log(path)
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
    "import sys, pathlib; from resources.audit import SqliteAuditLog; from resources.audit_signature import HeadSigner\n"
    "path = pathlib.Path(sys.argv[1]); log = SqliteAuditLog(path, signer=HeadSigner(path.parent / 'keys')); print('go', flush=True)\n"
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
    log = open_log(path)
    assert log.verify() == 120
    assert sum(entry["actor"] == "one" for entry in log.entries()) == 60


def test_a_kill_between_entries_leaves_a_chain_that_holds_and_goes_on(tmp_path):
    path = tmp_path / "state.sqlite"
    for delay in (0.05, 0.12, 0.2):
        process = start(path, 10**6, "one")
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.wait()
    log = open_log(path)
    length = log.verify()
    log.append("after", subject="m", actor="two", detail={})
    assert log.verify() == length + 1


def forge_afresh(path, *, leave_out=()):
    """Write the whole chain anew with fitting hashes, as one who knows the scheme and has no key."""
    connection = sqlite3.connect(path)
    for name in ("audit_no_update", "audit_no_delete", "audit_at_end", "audit_head_no_delete"):
        connection.execute(f"DROP TRIGGER {name}")
    names = ("seq", "at", "action", "subject", "actor", "detail", "previous", "hash")
    rows = [dict(zip(names, row, strict=True)) for row in connection.execute(f"SELECT {', '.join(names)} FROM audit ORDER BY seq")]
    connection.execute("DELETE FROM audit")
    previous, length = GENESIS, 0
    for row in rows:
        if row["seq"] in leave_out:
            continue
        length += 1
        row |= {"seq": length, "actor": "me", "previous": previous}
        row["hash"] = previous = hash_entry(row)
        connection.execute("INSERT INTO audit VALUES (:seq, :at, :action, :subject, :actor, :detail, :previous, :hash)", row)
    connection.execute("UPDATE audit_head SET length = ?, hash = ?", (length, previous))
    connection.execute("UPDATE audit_signature SET length = ?", (length,))
    connection.commit()
    connection.close()


@pytest.mark.parametrize("leave_out", [(), (3,), (5,)])
def test_a_chain_forged_afresh_is_found_and_takes_no_more_entries(written, leave_out):
    path, _ = written
    forge_afresh(path, leave_out=leave_out)
    with pytest.raises(StateError, match=r"its head \(entry [45]\) is not signed"):
        open_log(path).verify()
    with pytest.raises(StateError, match="is not signed"):
        open_log(path).append("after", subject="m", actor="x", detail={})


def test_a_signature_that_was_taken_away_is_found(written):
    path, _ = written
    behind_its_back(path, "DELETE FROM audit_signature")
    with pytest.raises(StateError, match=r"its head \(entry 5\) bears no signature"):
        open_log(path).verify()
    with pytest.raises(StateError, match="bears no signature"):
        open_log(path).append("after", subject="m", actor="x", detail={})


def test_a_log_from_before_there_were_signatures_is_signed_with_its_next_entry(written):
    path, _ = written
    behind_its_back(path, "DROP TABLE audit_signature")
    for key in (path.parent / "keys").iterdir():
        key.unlink()
    assert open_log(path).verify() == 5
    open_log(path).append("after", subject="m", actor="x", detail={})
    assert open_log(path).verify() == 6


def test_a_log_put_back_to_an_earlier_state_is_found_by_a_checkpoint_kept_elsewhere(written, tmp_path):
    path, log = written
    earlier = tmp_path / "earlier.sqlite"
    with sqlite3.connect(path) as ours, sqlite3.connect(earlier) as theirs:
        ours.backup(theirs)
    log.append("after", subject="m", actor="x", detail={})
    checkpoint = log.checkpoint()
    log.check_checkpoint(checkpoint)
    log.append("and after", subject="m", actor="x", detail={})
    log.check_checkpoint(checkpoint)
    old = SqliteAuditLog(earlier, signer=HeadSigner(path.parent / "keys"))
    assert old.verify() == 5  # whole and signed, as it was
    with pytest.raises(StateError, match="entry 6 is not the one of the checkpoint"):
        old.check_checkpoint(checkpoint)
    with pytest.raises(StateError, match="is not signed"):
        log.check_checkpoint({**checkpoint, "length": 5})


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_threads_and_a_forked_child_write_one_chain(request, tmp_path, kind):
    log = open_log(tmp_path / "state.sqlite")
    if kind == "postgres":
        log = open_postgres_log(own_database(request.getfixturevalue("postgres")), tmp_path)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda n: log.append("thread", subject="m", actor=str(n), detail={}), range(20)))
    pid = os.fork()
    if pid == 0:
        try:
            log.append("child", subject="m", actor="child", detail={})
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    log.append("parent", subject="m", actor="parent", detail={})
    assert log.verify() == 22
    assert [entry["action"] for entry in log.entries()[-2:]] == ["child", "parent"]


@pytest.fixture
def written_in_postgres(postgres, tmp_path):
    dsn = own_database(postgres)
    log = open_postgres_log(dsn, tmp_path)
    for n in range(5):
        log.append(f"step {n}", subject="m", actor="falaj", detail={"n": n})
    return dsn, log


def run_in_postgres(dsn, *statements):
    connection = connect_postgresql(dsn)
    try:
        with connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
    finally:
        connection.close()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit SET actor = 'me' WHERE seq = 3", "DELETE FROM audit WHERE seq = 3", "TRUNCATE audit", "DELETE FROM audit_head",
        "INSERT INTO audit SELECT seq + 2, at, action, subject, actor, detail, previous, hash FROM audit WHERE seq = 5",
    ],
)  # fmt: skip
def test_postgresql_itself_refuses_to_change_an_entry(written_in_postgres, statement):
    dsn, log = written_in_postgres
    with pytest.raises(psycopg2.Error, match="append-only"):
        run_in_postgres(dsn, statement)
    assert log.verify() == 5


@pytest.mark.parametrize(
    ("statement", "place"),
    [
        ("UPDATE audit SET actor = 'me' WHERE seq = 3", r"entry 3 \(step 2\) was altered"),
        ("DELETE FROM audit WHERE seq = 2", "entry 2 is missing"),
        ("DELETE FROM audit WHERE seq > 3", "the log was cut after entry 3 of 5"),
        ("DELETE FROM audit_signature", "bears no signature"),
    ],
)
def test_a_change_behind_the_back_of_postgresql_is_found(written_in_postgres, tmp_path, statement, place):
    dsn, _ = written_in_postgres
    run_in_postgres(dsn, "DROP TRIGGER audit_kept ON audit", statement)
    with pytest.raises(StateError, match=place):
        open_postgres_log(dsn, tmp_path).verify()


def test_a_log_in_a_postgresql_that_is_gone_says_where_it_looked(tmp_path):
    with pytest.raises(StateError, match=r"PostgreSQL at 127\.0\.0\.1:1/none could not be used"):
        open_postgres_log("postgresql://falaj@127.0.0.1:1/none", tmp_path).append("a", subject="m", actor="x", detail={})
