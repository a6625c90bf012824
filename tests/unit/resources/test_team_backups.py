"""A team's servers are backed up while they work, and filled again elsewhere; what is half filled by a kill is filled by the next try."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest
import redis
from kill_points import killed_at
from postgres_process import own_database
from s3_process import own_prefix

from platform_assets.errors import BackupError
from platform_assets.specs.events import Event
from platform_assets.specs.team import TeamSpec
from platform_assets.stages.training.heartbeat import connect_postgresql
from resources.audit import PostgresAuditLog
from resources.audit_signature import HeadSigner
from resources.backups import back_up, restore
from resources.delta_tables import DeltaTableStore
from resources.events import open_queue
from resources.s3 import S3
from resources.s3_artifacts import S3ArtifactStore
from resources.settings import Home
from resources.team import ask_servers, postgresql_dsn
from resources.team_backups import TeamServers

pytestmark = pytest.mark.timeout(300)


class Team:
    """Servers of its own on the session's, and a home."""

    def __init__(self, root: Path, postgres: str, redis_url: str, store: S3, *, number: int) -> None:
        self.home = Home(root / f"home{number}")
        self.redis = f"{redis_url.rpartition('/')[0]}/{number}"
        with closing(redis.Redis.from_url(self.redis)) as server:
            server.flushdb()
        servers = {"postgresql": {"url": own_database(postgres)}, "redis": {"url": self.redis}}
        self.spec = TeamSpec.model_validate(servers).model_copy(update={"store": store._server})
        self.servers, self.store = TeamServers(self.spec), store
        ask_servers(self.spec, root)

    @property
    def log(self) -> PostgresAuditLog:
        return PostgresAuditLog(postgresql_dsn(self.spec.postgresql, "falaj"), signer=HeadSigner(self.home.keys))

    @property
    def artefacts(self) -> S3ArtifactStore:
        return S3ArtifactStore(self.store, cache=self.home.artefacts)

    @property
    def tables(self) -> DeltaTableStore:
        return DeltaTableStore("tables", store=self.store)

    def queue(self, name: str):
        return open_queue(name, url=self.redis, path=self.home.events)


@pytest.fixture
def teams(tmp_path: Path, postgres: str, redis_server: str, s3_server):
    return [Team(tmp_path, postgres, redis_server, own_prefix(s3_server), number=number) for number in (11, 12)]


@pytest.fixture
def team(teams, tmp_path):
    """One that has something of everything: a made artefact and table, events that wait, are held, are known and are dead."""
    one = teams[0]
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "weights").write_text("w")
    digest = one.artefacts.put(tmp_path / "made")
    one.artefacts.remember("work", digest, {})
    pin = one.tables.replace("dataset/d/ingested", pa.table({"id": ["a", "b"]}))
    one.log.append("made", subject="m", actor="x", detail={"digest": digest, "version": pin.version})
    for number in range(4):
        one.queue("inbox").publish(event(number))
    held = one.queue("inbox").claim("falaj", most=3, lease_seconds=0.01)
    one.queue("inbox").bury("falaj", held[0].token, "no")
    one.queue("inbox").acknowledge("falaj", [held[1].token])
    one.queue("outbox").publish(event(9))
    one.home.serving.mkdir()
    (one.home.serving / "state.json").write_text("{}")
    return one


def event(number: int) -> Event:
    return Event(id=f"n{number}", source="/tests", type="falaj.retraining.asked", time=datetime.now(UTC), data={"model": "m"})


def test_servers_filled_from_a_backup_hold_what_the_others_held_and_go_on(team, teams, tmp_path):
    done = back_up(team.home, tmp_path / "b", tmp_path / "k", servers=team.servers)
    assert done["team"]
    there = teams[1]
    restore(there.home, tmp_path / "b", tmp_path / "k", servers=there.servers)
    assert there.log.verify() == 1
    (entry,) = there.log.entries()
    digest = entry["detail"]["digest"]
    assert (there.artefacts.path(digest) / "weights").read_text() == "w"
    assert there.artefacts.recall("work") == (digest, {})
    assert there.tables.read(there.tables.pin("dataset/d/ingested"))["id"].to_pylist() == ["a", "b"]
    inbox = there.queue("inbox")
    assert [letter.why for letter in inbox.dead("falaj")] == ["no"]
    assert inbox.waiting("falaj") == 2
    assert [one.attempt for one in inbox.claim("falaj", lease_seconds=0.0)] == [2, 1], "what was held is held, what waited waits"
    assert not inbox.publish(event(1)), "an id that was known is known"
    with closing(redis.Redis.from_url(there.redis)) as server:
        assert 0 < server.ttl("falaj:events:inbox:seen:/tests#n1") <= 30 * 86_400
    assert len(there.queue("outbox").claim("others")) == 1
    there.log.append("after", subject="m", actor="x", detail={})
    assert there.log.verify() == 2
    assert there.tables.merge("dataset/d/ingested", pa.table({"id": ["c"]}), key="id") == (1, 0)
    assert not (there.home.root / "team").exists()


_WORK = """
import pathlib, sys
from platform_assets.specs.team import TeamSpec, StoreSpec
from resources.audit import PostgresAuditLog
from resources.audit_signature import HeadSigner
from resources.s3 import S3
from resources.s3_artifacts import S3ArtifactStore
dsn, url, endpoint, credentials, keys, cache, made = sys.argv[1:]
store = S3ArtifactStore(S3(StoreSpec(url=url, endpoint=endpoint, credentials=credentials)), cache=pathlib.Path(cache))
log = PostgresAuditLog(dsn, signer=HeadSigner(pathlib.Path(keys)))
for n in range(10**6):
    (pathlib.Path(made) / "weights").write_text(str(n))
    log.append("made", subject="m", actor="x", detail={"digest": store.put(pathlib.Path(made))})
    if n == 3:
        print("go", flush=True)
"""


def test_whatever_a_log_copied_while_work_goes_on_names_is_in_the_backup(team, teams, tmp_path):
    server = team.spec.store
    worker = subprocess.Popen(
        [sys.executable, "-c", _WORK, postgresql_dsn(team.spec.postgresql, "falaj"), server.url, server.endpoint, str(server.credentials),
         str(team.home.keys), str(tmp_path / "cache"), str(tmp_path / "made")], stdout=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert worker.stdout.readline() == b"go\n"
        back_up(team.home, tmp_path / "b", tmp_path / "k", servers=team.servers)
    finally:
        worker.kill()
        worker.communicate()
    there = teams[1]
    restore(there.home, tmp_path / "b", tmp_path / "k", servers=there.servers)
    assert 4 < there.log.verify() < team.log.verify()
    assert all(there.artefacts.path(entry["detail"]["digest"]) for entry in there.log.entries())


def test_a_restoring_that_is_killed_is_done_again_into_the_same_servers(team, teams, tmp_path):
    back_up(team.home, tmp_path / "b", tmp_path / "k", servers=team.servers)
    there = teams[1]

    def restored() -> None:
        restore(there.home, tmp_path / "b", tmp_path / "k", servers=there.servers)

    for step in ("_lay_queue", "_lay_database", "finish"):

        def killed(step=step) -> None:
            setattr(there.servers, step, lambda *_: os.kill(os.getpid(), signal.SIGKILL))
            restored()

        assert killed_at(sys.maxsize, killed)
        assert not there.home.root.exists()
    back_up(team.home, tmp_path / "later", tmp_path / "later-k", servers=team.servers)
    with pytest.raises(BackupError, match="already"):
        restore(there.home, tmp_path / "later", tmp_path / "later-k", servers=there.servers)
    restored()
    assert there.log.verify() == 1
    assert there.queue("inbox").waiting("falaj") == 2
    shutil.rmtree(there.home.root)
    with pytest.raises(BackupError, match="already"):
        restored()


def test_servers_that_hold_anything_else_are_left_as_they_are(team, teams, tmp_path):
    back_up(team.home, tmp_path / "b", tmp_path / "k", servers=team.servers)
    there = teams[1]

    def refused(match: str) -> None:
        with pytest.raises(BackupError, match=match) as error:
            restore(there.home, tmp_path / "b", tmp_path / "k", servers=there.servers)
        assert "a backup is restored into empty servers" in str(error.value)
        assert not there.home.root.exists()

    there.store.write("tables/other", b"x")
    refused("the store has tables/other already")
    there.store.remove("tables/other")
    there.queue("inbox").publish(event(77))
    refused("Redis has falaj:events:inbox.* already")
    with closing(redis.Redis.from_url(there.redis)) as server:
        server.flushdb()
    there.log.append("x", subject="m", actor="x", detail={})
    shutil.rmtree(there.home.root)
    refused(r"PostgreSQL has falaj\.audit already")
    assert there.store.sizes("") == {}


def test_what_cannot_be_is_one_sentence(team, teams, tmp_path, monkeypatch):
    back_up(team.home, tmp_path / "b", tmp_path / "k", servers=team.servers)
    with pytest.raises(BackupError, match="is a backup of a team's servers, restore it with FALAJ_ENV=team"):
        restore(Home(tmp_path / "laptop"), tmp_path / "b", tmp_path / "k")
    with pytest.raises(BackupError, match="there are no keys in it"):
        back_up(Home(tmp_path / "none"), tmp_path / "b2", tmp_path / "k2", servers=team.servers)
    with monkeypatch.context() as changed:
        changed.setenv("PATH", "/nowhere")
        with pytest.raises(BackupError, match="there is no pg_dump on this machine"):
            back_up(team.home, tmp_path / "b3", tmp_path / "k3", servers=team.servers)
    assert not (tmp_path / "b3").exists()
    with closing(connect_postgresql(team.spec.postgresql.url)) as connection, connection, connection.cursor() as cursor:
        cursor.execute("DROP SCHEMA optuna")
    with pytest.raises(BackupError, match=r"pg_dump ended with 1: .*optuna"):
        back_up(team.home, tmp_path / "b4", tmp_path / "k4", servers=team.servers)
