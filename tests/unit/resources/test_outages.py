"""What is away for a while is told from what is wrong, by the errors that the libraries really raise."""

from __future__ import annotations

import errno
import sqlite3

import psycopg2
import pytest
import sqlalchemy
from deltalake import DeltaTable

from platform_assets.errors import DataError, OutageError, StateError
from platform_assets.specs.team import StoreSpec
from resources.databases import PostgresDatabase
from resources.outages import is_outage
from resources.s3 import S3

NOBODY = "127.0.0.1:1"


@pytest.fixture
def nowhere(tmp_path) -> S3:
    (tmp_path / "credentials").write_text("[default]\naws_access_key_id = a\naws_secret_access_key = b\n")
    return S3(StoreSpec(url="s3://x/y", endpoint=f"http://{NOBODY}", credentials=tmp_path / "credentials"), tries=1)


def raised(work) -> BaseException:
    with pytest.raises(Exception) as found:
        work()
    return found.value


def test_servers_that_nobody_runs_are_away(nowhere, tmp_path):
    dsn = f"postgresql://x@{NOBODY}/x"
    delta = {**nowhere.delta_options, "max_retries": "0", "retry_timeout": "1s"}
    found = [
        raised(lambda: psycopg2.connect(dsn)),
        raised(lambda: sqlalchemy.create_engine(dsn).connect()),
        raised(lambda: PostgresDatabase(dsn).opened({"sqlite": "", "postgresql": "SELECT 1"}).__enter__()),
        raised(lambda: nowhere.read("x")),
        raised(lambda: DeltaTable("s3://x/y", storage_options=delta)),
    ]
    assert [is_outage(error) for error in found] == [True] * len(found), found
    assert isinstance(found[2], OutageError)
    assert isinstance(found[3], OutageError)


@pytest.mark.parametrize(
    ("error", "away"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), True),
        (FileNotFoundError(errno.ENOENT, "no such file"), False),
        (PermissionError(errno.EACCES, "no"), False),
        (sqlite3.OperationalError("database or disk is full"), True),
        (sqlite3.OperationalError("no such table: x"), False),
        (StateError("the home is held"), False),
        (DataError("a column is missing"), False),
        (ValueError("x"), False),
    ],
)
def test_a_full_disk_is_one_and_what_is_wrong_is_none(error, away):
    assert is_outage(error) is away


def test_a_bucket_that_is_not_there_is_no_outage(s3_server):
    store = S3(s3_server.model_copy(update={"url": "s3://nobody/x"}))
    error = raised(lambda: store.write("x", b"x"))
    assert isinstance(error, StateError)
    assert not is_outage(error)
