"""A team's settings file: every wrong setting is told, each in one sentence, all of them at once."""

from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import redis
from hypothesis import given, settings
from hypothesis import strategies as st
from postgres_process import own_database
from redis_process import run_redis

from platform_assets import cli
from platform_assets.errors import SettingsError
from platform_assets.specs.team import PostgresqlSpec, TeamSpec, spec_of
from platform_assets.stages.training.heartbeat import connect_postgresql
from resources.settings import CHECKOUT
from resources.team import ROOMS, ask_servers, postgresql_dsn, read_team

GOOD = {"postgresql": {"url": "postgresql://falaj@127.0.0.1:1/falaj"}, "redis": {"url": "redis://127.0.0.1:1/0"}}


def written(folder: Path, text: str) -> Path:
    (folder / "team.toml").write_text(text)
    return folder / "team.toml"


def as_toml(tables) -> str:
    return "\n".join(f"[{table}]\n" + "\n".join(f'{key} = "{value}"' for key, value in keys.items()) for table, keys in tables.items())


def faults_of(file: Path) -> dict[str, str]:
    with pytest.raises(SettingsError) as refused:
        read_team(file)
    return {fault.field: fault.message for fault in refused.value.faults}


def test_the_shipped_file_is_a_good_one():
    team = read_team(CHECKOUT / "infra" / "team" / "team.toml")
    assert (team.postgresql.ca, team.redis.ca) == (None, None)


def test_the_shipped_file_shows_every_key_that_there_is():
    text = (CHECKOUT / "infra" / "team" / "team.toml").read_text()
    for table in TeamSpec.model_fields:
        part = text.partition(f"[{table}]")[2].replace("\n# ", "\n").partition("\n[")[0]
        assert all(f"\n{key} = " in part for key in spec_of(table).model_fields), table


@pytest.mark.parametrize(
    ("table", "key", "value", "said"),
    [
        ("postgresql", "url", "mysql://falaj@127.0.0.1/falaj", "right would be postgresql://USER@HOST:PORT/DATABASE"),
        ("postgresql", "url", "postgresql://127.0.0.1/falaj", "lacks a user or a database"),
        ("postgresql", "url", "postgresql://falaj@127.0.0.1", "lacks a user or a database"),
        ("postgresql", "url", "postgresql://falaj@127.0.0.1:99999/falaj", "no port from 1 to 65535"),
        ("postgresql", "url", "postgresql://falaj:secret@127.0.0.1/falaj", "a password stands in the address"),
        ("postgresql", "url", "postgresql://falaj@127.0.0.1/falaj?sslmode=disable", "each has a key of its own"),
        ("postgresql", "url", "postgresql://falaj@db.example/falaj", "db.example, which is not on loopback, without ca"),
        ("redis", "jurisdiction", "Germany", "'Germany' is no jurisdiction; write its two letters of ISO 3166-1, such as AE"),
        ("postgresql", "passfile", "/nowhere", "there is no file '/nowhere'"),
        ("postgresql", "key", str(CHECKOUT / "LICENSE"), "of certificate and key only one is named"),
        ("postgresql", "port", "5432", "is no setting"),
        ("redis", "url", "redis://redis.example/0", "redis.example, which is not on loopback, without ca"),
        ("redis", "url", "rediss://127.0.0.1/0", "ca and the scheme rediss:// go together"),
        ("redis", "url", "http://127.0.0.1", "right would be redis://HOST:PORT/DB"),
        ("store", "url", "s3://falaj:secret@x/y", "a password stands in the address"),
        ("store", "endpoint", "http://s3.example", "s3.example, which is not on loopback, without ca"),
        ("store", "endpoint", "https://127.0.0.1:9000/minio", "has a path"),
        ("elsewhere", "url", "x", "is no setting"),
    ],
)
def test_each_wrong_setting_is_told_in_one_sentence(tmp_path, table, key, value, said):
    store = {"url": "s3://falaj/team", "endpoint": "http://127.0.0.1:1", "credentials": str(CHECKOUT / "LICENSE")}
    known = {**GOOD, **({"store": store} if table == "store" else {})}
    file = written(tmp_path, as_toml({**known, table: {**known.get(table, {}), key: value}}))
    (told,) = [message for field, message in faults_of(file).items() if field.startswith(table)]
    assert said in told
    assert "\n" not in told
    assert "secret" not in told


def test_all_that_is_wrong_is_told_at_once_also_a_server_that_does_not_answer(tmp_path):
    wrong = {"postgresql": {"url": "x", "passfile": "/nowhere", "speed": "high"}, "redis": GOOD["redis"]}
    found = faults_of(written(tmp_path, as_toml(wrong)))
    assert set(found) == {"postgresql.url", "postgresql.passfile", "postgresql.speed", "redis"}
    assert "Redis at 127.0.0.1:1 was asked what it is and said: " in found["redis"]


@pytest.mark.parametrize(("text", "said"), [("[postgresql", "is no TOML file"), ("", "is missing")])
def test_a_file_that_is_none_is_told(tmp_path, text, said):
    assert all(said in message for message in faults_of(written(tmp_path, text)).values())
    assert "cannot be read" in faults_of(tmp_path / "absent.toml")[""]


@settings(max_examples=60)
@given(st.sampled_from(sorted(GOOD)), st.sampled_from(["", "redis://", "postgresql://u@", "rediss://"]), st.text(max_size=30))
def test_an_address_that_is_taken_without_certificates_is_on_loopback_whatever_its_text(table, begin, rest):
    try:
        team = TeamSpec.model_validate({**GOOD, table: {"url": begin + rest}})
    except ValueError:
        team = TeamSpec.model_validate(GOOD)
    assert all(urlsplit(server.url).hostname.startswith(("127.", "localhost", "::1")) for server in (team.postgresql, team.redis))


def test_nobody_asks_a_server_over_an_unverified_connection(tmp_path):
    (tmp_path / "ca.pem").write_text("x")
    server = PostgresqlSpec(
        url="postgresql://falaj@db.example/falaj", ca=tmp_path / "ca.pem", passfile=tmp_path / "ca.pem", jurisdiction="AE"
    )
    dsn = postgresql_dsn(server, "mlflow")
    assert "sslmode=verify-full" in dsn
    assert f"sslrootcert={str(tmp_path).replace('/', '%2F')}%2Fca.pem" in dsn
    assert "options=-csearch_path%3Dmlflow" in dsn


def test_servers_that_answer_are_made_ready_and_each_room_is_a_schema_of_its_own(postgres, redis_server):
    database = own_database(postgres)
    team = TeamSpec.model_validate({"postgresql": {"url": database}, "redis": {"url": redis_server}})
    ask_servers(team, Path("team.toml"))
    ask_servers(team, Path("team.toml"))
    for room in ROOMS:
        with closing(connect_postgresql(postgresql_dsn(team.postgresql, room))) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT current_schema()")
            assert cursor.fetchone() == (room,)


def test_a_user_who_may_make_no_schema_is_told_what_to_run(postgres, redis_server):
    database = own_database(postgres)
    with closing(connect_postgresql(database)) as connection, connection, connection.cursor() as cursor:
        cursor.execute("DO $$ BEGIN CREATE ROLE guest LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$")
    guest = {"url": database.replace("falaj@", "guest@")}
    with pytest.raises(SettingsError, match=r"GRANT CREATE ON DATABASE own_[0-9a-f]+ TO guest"):
        ask_servers(TeamSpec.model_validate({"postgresql": guest, "redis": {"url": redis_server}}), Path("team.toml"))


@pytest.mark.usefixtures("redis_server")  # skips where there is none
@pytest.mark.parametrize(
    ("setting", "value", "said"),
    [
        ("appendonly", "no", "keeps no append-only file, so events that were taken are gone when it is started again; set appendonly yes"),
        ("maxmemory", "100mb", None),
    ],
)
def test_a_redis_that_loses_or_drops_events_is_refused(tmp_path, postgres, setting, value, said):
    team = {"postgresql": {"url": own_database(postgres)}}
    with run_redis(tmp_path) as url, closing(redis.Redis.from_url(url)) as server:
        spec = TeamSpec.model_validate({**team, "redis": {"url": url}})
        server.config_set(setting, value)
        if said is None:
            ask_servers(spec, Path("team.toml"))  # full it refuses to take more, and drops nothing
            server.config_set("maxmemory-policy", "allkeys-lru")
            said = "drops keys when memory is short (maxmemory-policy allkeys-lru), events with them; set noeviction"
        with pytest.raises(SettingsError) as refused:
            ask_servers(spec, Path("team.toml"))
    assert [(fault.field, said in fault.message) for fault in refused.value.faults] == [("redis", True)]


def test_a_password_file_that_others_can_read_is_told_before_libpq_passes_over_it(tmp_path, postgres, redis_server):
    passfile = tmp_path / "pgpass"
    passfile.write_text("*:*:*:*:x")
    passfile.chmod(0o644)
    team = {"postgresql": {"url": own_database(postgres), "passfile": str(passfile)}, "redis": {"url": redis_server}}
    with pytest.raises(SettingsError, match=f"can be read by others, so it is not used; run: chmod 600 {passfile}"):
        ask_servers(TeamSpec.model_validate(team), Path("team.toml"))
    passfile.chmod(0o600)
    ask_servers(TeamSpec.model_validate(team), Path("team.toml"))


def test_the_command_says_it_all_and_ends_with_one(tmp_path, monkeypatch, capsys):
    (tmp_path / "s3").write_text("[default]\n")
    store = {"url": "s3://falaj/team", "endpoint": "http://127.0.0.1:1", "credentials": str(tmp_path / "s3")}
    file = written(tmp_path, as_toml({**GOOD, "store": store}))
    for name, value in {"FALAJ_ENV": "team", "FALAJ_TEAM": str(file), "FALAJ_HOME": str(tmp_path / "home")}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("sys.argv", ["falaj", "run"])
    monkeypatch.setattr("signal.signal", lambda *_: None)
    with pytest.raises(SystemExit, match="1"):
        cli.main()
    said = capsys.readouterr().err
    assert "3 things are wrong with the team's settings" in said
    assert "postgresql: PostgreSQL at 127.0.0.1:1 was asked for database falaj as falaj and said" in said
    assert "redis: Redis at 127.0.0.1:1" in said
    assert "store: " in said
    assert "holds no credentials; right would be [default], and in it aws_access_key_id" in said
    assert not (tmp_path / "home" / "instance").exists()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"url": "s3://nowhere/team"}, "NoSuchBucket"),
        ({"endpoint": "http://127.0.0.1:1"}, "Could not connect to the endpoint"),
    ],
)
def test_a_store_that_cannot_be_used_is_told(s3_server, postgres, redis_server, changed, said):
    store = s3_server.model_copy(update=changed)
    team = TeamSpec.model_validate({"postgresql": {"url": own_database(postgres)}, "redis": {"url": redis_server}})
    with pytest.raises(SettingsError) as refused:
        ask_servers(team.model_copy(update={"store": store}), Path("team.toml"))
    (fault,) = refused.value.faults
    assert fault.field == "store"
    assert said in fault.message
