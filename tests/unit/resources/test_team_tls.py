"""TLS to a team's servers: the certificate must come from the named authority and bear the name in the address, or nothing is said to it."""

import shutil

import pytest
from postgres_process import find_programs, run_postgres
from redis_process import run_redis
from throw_away_ca import Authority

from platform_assets.errors import EventError, SettingsError, StateError
from platform_assets.specs.team import TeamSpec
from resources.audit import PostgresAuditLog
from resources.audit_signature import HeadSigner
from resources.events import INBOX, open_queue
from resources.team import ask_servers, postgresql_dsn, redis_url


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
