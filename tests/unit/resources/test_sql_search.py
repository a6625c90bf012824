"""A word is found wherever PostgreSQL keeps text, by itself and not within another, and what cannot be searched is said."""

from __future__ import annotations

import json
import re
from contextlib import closing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from postgres_process import own_database

from platform_assets.errors import StateError
from platform_assets.stages.training.heartbeat import connect_postgresql
from resources.sql_search import find_words

PERSON = "guest-0042"
TABLES = """
    CREATE SCHEMA other;
    CREATE TABLE note (id int, said text, "odd ""name" varchar(50), word char(20));
    CREATE TABLE other.event (body json, more jsonb, raw bytea, words text[], at timestamptz, n numeric);
    CREATE VIEW seen AS SELECT said FROM note;
    INSERT INTO note (id) VALUES (1);
    INSERT INTO other.event (n) VALUES (1);
"""


@pytest.fixture(scope="module")
def database(postgres: str) -> str:
    dsn = own_database(postgres)
    run(dsn, TABLES)
    return dsn


def run(dsn: str, sql: str, *values: object) -> None:
    with closing(connect_postgresql(dsn)) as connection, connection, connection.cursor() as cursor:
        cursor.execute(sql, values or None)


@pytest.mark.parametrize(
    ("place", "store", "value"),
    [
        ("public.note.said", "UPDATE note SET said = %s", f"the guest {PERSON}."),
        ('public.note.odd "name', 'UPDATE note SET "odd ""name" = %s', PERSON),
        ("public.note.word", "UPDATE note SET word = %s", PERSON),
        ("other.event.body", "UPDATE other.event SET body = %s", json.dumps({"a": {"who": PERSON}})),
        ("other.event.more", "UPDATE other.event SET more = %s", json.dumps({"a": [PERSON]})),
        ("other.event.raw", "UPDATE other.event SET raw = %s", b"\x00\xff" + PERSON.encode() + b"\x01"),
        ("other.event.words", "UPDATE other.event SET words = %s", ["x", PERSON]),
    ],
)
def test_a_word_is_found_in_every_kind_of_text_and_its_place_is_named(database: str, place: str, store: str, value: object) -> None:
    run(database, store, value)
    assert find_words(database, ["nobody-at-all", PERSON]) == [place]
    run(database, store, None)
    assert find_words(database, [PERSON]) == []


@pytest.mark.parametrize(
    ("word", "raw", "is_there"),
    [
        ("Zoë Å", b"\xff" + "Zoë Å".encode() + b"\x00", True),
        ("a\\b.c!", b"1 a\\b.c!", True),
        (PERSON, b"1" + PERSON.encode(), False),
        (PERSON, PERSON.encode() + b"1", False),
        ("Zoë Å", "Zoe Å".encode(), False),
    ],
)
def test_bytes_are_read_as_bytes(database: str, word: str, raw: bytes, is_there: bool) -> None:
    run(database, "UPDATE other.event SET raw = %s", raw)
    assert find_words(database, [word]) == (["other.event.raw"] if is_there else [])
    run(database, "UPDATE other.event SET raw = NULL")


@settings(max_examples=40)
@given(
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=12),
    st.text(" -_.aZ0é'%\\", max_size=4),
    st.text(" -_.aZ0é'%\\", max_size=4),
)
def test_it_stands_for_itself_and_by_itself_as_in_files(database: str, word: str, before: str, after: str) -> None:
    text = before + word + after
    run(database, "UPDATE note SET said = %s", text)
    wanted = re.search(rb"(?<![0-9A-Za-z])" + re.escape(word.encode()) + rb"(?![0-9A-Za-z])", text.encode())
    assert find_words(database, [word]) == (["public.note.said"] if wanted else [])
    run(database, "UPDATE note SET said = NULL")


def test_a_database_that_does_not_show_all_of_itself_is_no_proof(database: str) -> None:
    run(database, "CREATE ROLE half LOGIN; GRANT SELECT ON note TO half")
    try:
        with pytest.raises(StateError, match="could not be searched: permission denied for"):
            find_words(database.replace("falaj@", "half@"), [PERSON])
    finally:
        run(database, "REVOKE ALL ON note FROM half; DROP ROLE half")
    with pytest.raises(StateError, match="could not be searched"):
        find_words("postgresql://falaj@127.0.0.1:1/none", [PERSON])
