"""Files are searched for words by another process, so that this one keeps its locks on them."""

import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest

from platform_assets.errors import StateError
from resources.word_search import find_words

_WRITE = "import sqlite3, sys; sqlite3.connect(sys.argv[1], timeout=0).execute('INSERT INTO seen VALUES (2)')"


def test_whole_words_are_found_in_every_file_but_those_apart(tmp_path):
    for name, text in {"a": "x (sara.b) y", "in/b": "sara.bee", "in/c": "\0sara.b\0", "keys/d": "sara.b", "e": ""}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert sorted(find_words(tmp_path, ["sara.b", "nobody"], apart=[tmp_path / "keys"])) == ["a", "in/c"]


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_what_is_locked_here_stays_locked_while_it_is_searched(tmp_path, mode):
    path = tmp_path / "state.sqlite"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(f"PRAGMA journal_mode={mode}")
        connection.execute("CREATE TABLE seen (number INT)")
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("INSERT INTO seen VALUES (1)")
        find_words(tmp_path, ["nobody"], apart=[])
        other = subprocess.run([sys.executable, "-c", _WRITE, str(path)], capture_output=True, text=True, check=False)
        assert "database is locked" in other.stderr
        connection.execute("COMMIT")
        assert connection.execute("SELECT number FROM seen").fetchall() == [(1,)]


def test_what_cannot_be_searched_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StateError, match="could not be searched: UnicodeEncodeError"):
        find_words(tmp_path, ["\ud800"], apart=[])
