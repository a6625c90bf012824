"""`falaj up --tenants` of a team: each tenant on servers of its own, which its home names, and nothing shared by a slip."""

from __future__ import annotations

import shutil
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import psycopg2
import pytest
import yaml
from pipeline.tiny import DATASET, DEFS, MODEL, TinyHome
from postgres_process import find_programs, run_postgres
from redis_process import run_redis

from platform_assets.errors import SettingsError
from platform_assets.main_job import tenants
from resources.settings import TENANTS_TEAM, Settings, child_environment, read_settings, with_places, with_team

NAMES = ("banks", "hotels")


@pytest.fixture(scope="module")
def servers(tmp_path_factory):
    if find_programs() is None or shutil.which("redis-server") is None:
        pytest.skip("no PostgreSQL or no Redis server on this machine: install Debian's packages postgresql and redis-server")
    with run_postgres(find_programs()) as dsn, run_redis(tmp_path_factory.mktemp("redis")) as url:
        with closing(psycopg2.connect(dsn)) as first:  # not `with` itself: that begins a transaction, which takes no CREATE DATABASE
            first.autocommit = True
            for name in NAMES:
                first.cursor().execute(f"CREATE DATABASE {name}")
        yield dsn, url


@pytest.fixture
def site(servers, tmp_path):
    """A team's home with a model of each tenant, and a way to write a tenant's file."""
    dsn, url = servers

    def write(file: Path, *, database: str, number: int) -> Path:
        file.parent.mkdir(parents=True, exist_ok=True)
        place = dsn.rpartition("/")[0]
        file.write_text(f'[postgresql]\nurl = "{place}/{database}"\n[redis]\nurl = "{url.rpartition("/")[0]}/{number}"\n')
        return file

    for name in NAMES:
        for kind, what in (("datasets", DATASET), ("models", MODEL)):
            document = yaml.safe_load((DEFS / kind / what / "defs.yaml").read_text())
            document["attributes"]["name"] = f"{name}_{kind}"
            if kind == "models":
                document["attributes"] |= {"tenant": name, "dataset": f"{name}_datasets"}
            (tmp_path / "defs" / kind / name).mkdir(parents=True)
            (tmp_path / "defs" / kind / name / "defs.yaml").write_text(yaml.safe_dump(document))
    laptop = TinyHome(tmp_path / "home", defs=tmp_path / "defs").settings
    file = write(tmp_path / "platform.toml", database="postgres", number=0)
    return with_places(with_team(laptop, file)), write


def home_of(settings: Settings, name: str) -> Path:
    return settings.home.tenants / name


def test_each_tenant_is_on_the_servers_that_its_home_names(site, servers, monkeypatch):
    settings, write = site
    for number, name in enumerate(NAMES, start=1):
        write(home_of(settings, name) / TENANTS_TEAM, database=name, number=number)
    found = tenants.prepare_tenants(settings)
    assert [one.tenant for one in found] == list(NAMES)
    for number, one in enumerate(found, start=1):
        assert f"/{one.tenant}?" in one.ledger
        assert one.events.endswith(f"/{number}")
        assert one.leases == settings.leases  # GPUs are this machine's
        assert {place.part for place in one.places} == {place.part for place in settings.places}
        with psycopg2.connect(f"{servers[0].rpartition('/')[0]}/{one.tenant}") as database, database.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM pg_namespace WHERE nspname IN ('dagster', 'mlflow', 'optuna', 'falaj')")
            assert cursor.fetchone() == (4,)
        assert f"/{one.tenant}?" in (one.home.instance / "dagster.yaml").read_text()
        with monkeypatch.context() as process:  # as one of its processes reads it, and as a shell that names the home alone
            for name, value in child_environment(one).items():
                process.setenv(name, value)
            assert (read_settings().ledger, read_settings().events, read_settings().leases) == (one.ledger, one.events, one.leases)
            process.setenv("FALAJ_TEAM", str(settings.team_file))
            assert read_settings().ledger == one.ledger


def test_every_file_that_is_missing_wrong_or_anothers_is_named_at_once(site):
    settings, write = site
    with pytest.raises(SettingsError) as refused:
        tenants.prepare_tenants(settings)
    assert [fault.file for fault in refused.value.faults] == [str(home_of(settings, name) / TENANTS_TEAM) for name in NAMES]
    assert all("in a tenant's home it is team.toml" in fault.message for fault in refused.value.faults)
    write(home_of(settings, "banks") / TENANTS_TEAM, database="postgres", number=1)
    write(home_of(settings, "hotels") / TENANTS_TEAM, database="hotels", number=1)
    with pytest.raises(SettingsError) as refused:
        tenants.prepare_tenants(settings)
    said = {(Path(fault.file).parent.name, fault.field): fault.message for fault in refused.value.faults}
    assert set(said) == {("banks", "postgresql"), ("hotels", "redis")}
    assert "platform.toml as well; each tenant has a database" in said["banks", "postgresql"]
    assert "tenants/banks/team.toml as well" in said["hotels", "redis"]
    assert not (home_of(settings, "banks") / "tenant").exists()


@pytest.mark.parametrize(
    ("first", "second", "apart"),
    [("s3://b/banks", "s3://b/hotels", True), ("s3://b/banks", "s3://b/banks2", True), ("s3://b/banks", "s3://b/banks/x", False), ("s3://b", "s3://b/x", False)],
)  # fmt: skip
def test_a_prefix_within_anothers_is_the_others(site, tmp_path, first, second, apart):
    settings, write = site
    secret = tmp_path / "s3"
    secret.write_text("[default]\naws_access_key_id = a\naws_secret_access_key = b\n")
    secret.chmod(0o600)
    for number, (name, url) in enumerate(zip(NAMES, (first, second), strict=True), start=1):
        file = write(home_of(settings, name) / TENANTS_TEAM, database=name, number=number)
        file.write_text(file.read_text() + f'[store]\nurl = "{url}"\nendpoint = "http://127.0.0.1:1"\ncredentials = "{secret}"\n')
    fields = []
    try:
        tenants._hold_apart(replace(settings), NAMES)
    except SettingsError as error:
        fields = [fault.field for fault in error.faults]
    assert fields == ([] if apart else ["store"])
