"""Connections to the state file that a thread keeps: to which file, in which process, and within another unit of work."""

import os
import sqlite3
import threading
from contextlib import closing

import pytest
from kill_points import was_killed

from resources.state import keep_state, write_alone

SCHEMA = "CREATE TABLE IF NOT EXISTS seen (word TEXT)"


def add(path, word):
    with keep_state(path, schema=SCHEMA) as connection:
        connection.execute("INSERT INTO seen VALUES (?)", (word,))
        return connection


def words(path):
    with keep_state(path, schema=SCHEMA) as connection:
        return [word for (word,) in connection.execute("SELECT word FROM seen ORDER BY word")]


def test_a_thread_comes_back_to_its_connection_and_another_has_its_own(tmp_path):
    path = tmp_path / "state.sqlite"
    first, others = add(path, "a"), []
    thread = threading.Thread(target=lambda: others.append(add(path, "b")))
    thread.start()
    thread.join()
    assert add(path, "c") is first
    assert others[0] is not first
    assert words(path) == ["a", "b", "c"]


@pytest.mark.parametrize("how", ["removed", "replaced"])
def test_a_file_that_is_another_one_is_opened_anew(tmp_path, how):
    path = tmp_path / "state.sqlite"
    first = add(path, "before")
    if how == "removed":
        for file in tmp_path.iterdir():
            file.unlink()
    else:
        with closing(sqlite3.connect(tmp_path / "other.sqlite")) as other:
            other.execute(SCHEMA)
        for file in tmp_path.glob("state.sqlite-*"):
            file.unlink()
        (tmp_path / "other.sqlite").rename(path)
    assert add(path, "after") is not first
    assert "after" in words(path)
    assert "before" not in words(path)


def test_a_unit_within_a_unit_sees_what_is_committed_alone(tmp_path):
    path = tmp_path / "state.sqlite"
    add(path, "a")
    with keep_state(path, schema=SCHEMA) as connection, write_alone(connection):
        connection.execute("INSERT INTO seen VALUES ('b')")
        assert words(path) == ["a"]
    assert words(path) == ["a", "b"]


def test_after_an_error_nothing_of_the_unit_is_left(tmp_path):
    path = tmp_path / "state.sqlite"
    first = add(path, "a")

    def fail():
        with keep_state(path, schema=SCHEMA) as connection, write_alone(connection):
            connection.execute("INSERT INTO seen VALUES ('b')")
            connection.execute("no statement")

    with pytest.raises(sqlite3.OperationalError):
        fail()
    assert words(path) == ["a"]
    assert add(path, "c") is not first


def test_a_fork_has_connections_of_its_own_and_leaves_its_parents_be(tmp_path):
    path = tmp_path / "state.sqlite"
    first = add(path, "a")

    def child():
        assert add(path, "child") is not first

    with keep_state(path, schema=SCHEMA) as connection, write_alone(connection):
        connection.execute("INSERT INTO seen VALUES ('parent')")
        pid = os.fork()
        if pid == 0:
            os._exit(0 if words(path) == ["a"] else 1)  # its parent's lock holds, and it sees what was committed
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert not was_killed(child)
    assert add(path, "z") is first
    assert words(path) == ["a", "child", "parent", "z"]
