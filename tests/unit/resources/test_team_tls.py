"""TLS to a team's servers: the certificate must come from the named authority and bear the name in the address, or nothing is said to it."""

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from postgres_process import find_programs, run_postgres
from redis_process import run_redis
from s3_process import run_s3
from throw_away_ca import Authority

from platform_assets.errors import EventError, ReleaseError, SettingsError, StateError
from platform_assets.specs.team import TeamSpec
from platform_assets.stages.serving.aws import StorePlace, StoreReader
from platform_assets.stages.serving.online_redis import RedisOnlineReader
from resources.audit import PostgresAuditLog
from resources.audit_signature import HeadSigner
from resources.events import INBOX, open_queue
from resources.feast_store.redis_values import RedisValues
from resources.feast_store.values import place_of
from resources.kms import KmsKeys
from resources.s3 import S3
from resources.settings import Home, Settings
from resources.team import ask_servers, postgresql_dsn, redis_url

SETTINGS = Settings(home=Home(Path("home")), environment="team", defs_root=Path(), webhook_url=None, serve_port=0, web_port=0)


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def servers(authority, tmp_path_factory):
    """PostgreSQL and Redis that speak TLS alone, and ask who calls."""
    if find_programs() is None or shutil.which("redis-server") is None:
        pytest.skip("no PostgreSQL or no Redis server on this machine: install Debian's packages postgresql and redis-server")
    tls = (*authority.issue("server"), authority.certificate)
    with run_postgres(find_programs(), tls=tls) as dsn, run_redis(tmp_path_factory.mktemp("redis"), tls=tls) as url:
        yield dsn, url


@pytest.fixture
def team(servers, authority):
    """Settings of these servers; what is handed over replaces keys of both tables."""
    certificate, key = authority.issue("falaj")
    good = {"ca": authority.certificate, "certificate": certificate, "key": key}

    def settings(**changed):
        return TeamSpec.model_validate(
            {table: {"url": url, **good, **changed} for table, url in zip(("postgresql", "redis"), servers, strict=True)}
        )

    return settings


def faults(team, path):
    with pytest.raises(SettingsError) as refused:
        ask_servers(team, path)
    return {fault.field: fault.message for fault in refused.value.faults}


def test_servers_whose_certificates_hold_are_spoken_to(team, tmp_path):
    ask_servers(team(), tmp_path)
    log = PostgresAuditLog(postgresql_dsn(team().postgresql, "falaj"), signer=HeadSigner(tmp_path / "keys"))
    log.append("a", subject="m", actor="x", detail={})
    assert log.verify() == 1
    assert open_queue(INBOX, url=redis_url(team().redis), path=tmp_path).waiting("g") == 0


def test_certificates_of_another_authority_are_refused_in_a_sentence_each(team, tmp_path):
    other = team(ca=Authority(tmp_path / "other").certificate)
    found = faults(other, tmp_path)
    assert "certificate verify failed" in found["postgresql"]
    assert "certificate verify failed" in found["redis"].lower()
    assert all("\n" not in said for said in found.values())
    with pytest.raises(StateError, match="certificate verify failed"):
        PostgresAuditLog(postgresql_dsn(other.postgresql, "falaj"), signer=HeadSigner(tmp_path / "keys")).entries()
    with pytest.raises(EventError, match=r"(?i)certificate verify failed"):
        open_queue(INBOX, url=redis_url(other.redis), path=tmp_path).waiting("g")


def test_newest_values_are_read_and_written_over_tls_and_nothing_is_said_to_another_authoritys_server(team, tmp_path):
    place = place_of(replace(SETTINGS, team=team()))
    RedisValues(place).upsert("things", kinds={"score": "numeric"}, rows=[("a", 1, 2.0)])
    assert RedisOnlineReader(place).read("things", "a") == {"score": 2.0}
    other = place_of(replace(SETTINGS, team=team(ca=Authority(tmp_path / "other").certificate)))
    with pytest.raises(StateError, match=r"could not be used for online values: .*(?i:certificate verify failed)"):
        RedisValues(other).pin("things")
    with pytest.raises(StateError, match=r"was asked for online values and said: .*(?i:certificate verify failed)"):
        RedisOnlineReader(other).read("things", "a")


def test_a_good_certificate_of_another_name_is_refused(team, tmp_path):
    named = team()
    moved = {
        table: getattr(named, table).model_copy(update={"url": getattr(named, table).url.replace("127.0.0.1", "localhost")})
        for table in ("postgresql", "redis")
    }
    found = faults(named.model_copy(update=moved), tmp_path)
    assert 'does not match host name "localhost"' in found["postgresql"]
    assert "Hostname mismatch" in found["redis"]


def test_who_shows_no_certificate_is_sent_away(team, tmp_path):
    found = faults(team(certificate=None, key=None), tmp_path)
    assert set(found) == {"postgresql", "redis"}


def test_an_address_without_tls_is_not_served(servers, tmp_path):
    dsn, url = servers
    open_line = {"postgresql": {"url": dsn}, "redis": {"url": url.replace("rediss", "redis")}}
    assert set(faults(TeamSpec.model_validate(open_line), tmp_path)) == {"postgresql", "redis"}


@pytest.fixture(scope="module")
def store(authority, tmp_path_factory):
    with run_s3(tmp_path_factory.mktemp("s3"), tls=(*authority.issue("store"), authority.certificate)) as server:
        yield server


def test_a_store_whose_certificate_holds_takes_artefacts_and_another_is_refused(store, tmp_path):
    S3(store).write("a", b"1")
    assert S3(store).read("a") == b"1"
    other = store.model_copy(update={"ca": Authority(tmp_path / "other").certificate})
    with pytest.raises(StateError, match=r"(?i)certificate verify failed"):
        S3(other, tries=1).read("a")
    with pytest.raises(StateError, match="doesn't match"):
        S3(store.model_copy(update={"endpoint": store.endpoint.replace("127.0.0.1", "localhost")}), tries=1).read("a")


def test_the_inference_server_reads_and_unwraps_from_a_store_whose_certificate_holds_and_from_no_other(store, tmp_path):
    S3(store).write("a", b"1")
    key_id, wrapped = KmsKeys(S3(store)).wrap(b"k" * 32, context=b"c")
    place = StorePlace(store.url, store.endpoint, store.credentials, ca=store.ca, kms=store.kms)
    assert StoreReader(place).read("a") == b"1"
    assert StoreReader(place).unwrap(key_id, wrapped, context=b"c") == b"k" * 32
    other = replace(place, ca=Authority(tmp_path / "other").certificate)
    with pytest.raises(ReleaseError, match=r"https://127\.0\.0\.1:\d+ was not trusted: .*; `ca` names whose certificates are"):
        StoreReader(other).read("a")
    with pytest.raises(StateError, match="was not trusted"):
        StoreReader(other).unwrap(key_id, wrapped, context=b"c")
    with pytest.raises(ReleaseError, match=r"was not trusted: .*localhost"):
        StoreReader(replace(place, endpoint=place.endpoint.replace("127.0.0.1", "localhost"))).read("a")


_COMMIT = """
import sys, pathlib, pyarrow as pa
from platform_assets.specs.team import StoreSpec
from resources.delta_tables import DeltaTableStore
from resources.s3 import S3
tables = DeltaTableStore("tables", store=S3(StoreSpec.model_validate_json(sys.argv[1])))
print(tables.read(tables.replace("t", pa.table({"a": [1, 2]}))).num_rows)
"""


def test_tables_are_written_to_a_store_whose_certificate_holds_and_to_no_other(store, tmp_path):
    """In processes of their own, as FALAJ_ENV=team starts them: Delta Lake's client takes its authorities from the environment."""
    other = store.model_copy(update={"ca": Authority(tmp_path / "other").certificate})
    good, bad = (
        subprocess.Popen(
            [sys.executable, "-c", _COMMIT, one.model_dump_json()], env={**os.environ, "SSL_CERT_FILE": str(one.ca)}, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for one in (store, other)
    )  # fmt: skip
    assert good.communicate()[0].strip() == "2"
    assert "invalid peer certificate" in bad.communicate()[1]
    assert bad.returncode != 0
