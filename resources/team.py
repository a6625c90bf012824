"""The settings file of a team's servers: read, checked, and asked at start whether each server answers. All faults are told together."""

from __future__ import annotations

import tomllib
import uuid
from contextlib import closing
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote, urlencode, urlsplit

from pydantic import BaseModel, ValidationError

from platform_assets.errors import FalajError, Fault, SettingsError, StateError
from platform_assets.specs.team import PostgresqlSpec, RedisSpec, StoreSpec, TeamSpec, VaultSpec, spec_of
from platform_assets.stages.serving.vault import VaultPlace

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

Room = Literal["dagster", "mlflow", "optuna", "falaj"]
ROOMS: tuple[Room, ...] = ("dagster", "mlflow", "optuna", "falaj")
_ANSWER_SECONDS = 5
_LEAST_POSTGRESQL = 150000  # server_version_num: CREATE OR REPLACE TRIGGER came with 14, schemas of one's own by default with 15
_LEAST_REDIS = (6, 2)  # XAUTOCLAIM


def read_team(path: Path) -> TeamSpec:
    """Read the file; SettingsError lists every fault of it, and of the servers whose tables are well formed."""
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(
            [
                Fault(
                    str(path),
                    "",
                    f"cannot be read ({error.strerror}); FALAJ_TEAM names the settings file, in a tenant's home it is team.toml",
                )
            ]
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError([Fault(str(path), "", f"is no TOML file: {error}")]) from None
    try:
        return TeamSpec.model_validate(found)
    except ValidationError as error:
        faults = [_fault(path, one) for one in error.errors()]
    for table, ask in _ASKED.items():
        section = _section(table, found.get(table))
        if section is not None and (fault := ask(section)) is not None:
            faults.append(Fault(str(path), table, fault))
    raise SettingsError(faults)


def ask_servers(team: TeamSpec, path: Path) -> None:
    """Ask each server for what this platform needs of it; SettingsError lists all that is wrong. Missing schemas are made here."""
    answers = {table: ask(server) for table, ask in _ASKED.items() if (server := getattr(team, table)) is not None}
    faults = [Fault(str(path), table, fault) for table, fault in answers.items() if fault is not None]
    if faults:
        raise SettingsError(faults)


def postgresql_dsn(server: PostgresqlSpec, room: Room | None = None) -> str:
    """Return libpq's URI of the database, its `search_path` the schema of `room`. It holds no secret: passwords stand in files."""
    files = {"sslrootcert": server.ca, "sslcert": server.certificate, "sslkey": server.key, "passfile": server.passfile}
    more = {name: str(file.absolute()) for name, file in files.items() if file is not None}
    if server.ca is not None:
        more["sslmode"] = "verify-full"  # libpq's default takes any certificate
    if room is not None:
        more["options"] = f"-csearch_path={room}"
    return f"{server.url}?{urlencode(more, quote_via=quote)}" if more else server.url


def redis_url(server: RedisSpec) -> str:
    """Return the URL that the client takes, its password read from the file: for this process alone."""
    files = {"ssl_ca_certs": server.ca, "ssl_certfile": server.certificate, "ssl_keyfile": server.key}
    more = {name: str(file.absolute()) for name, file in files.items() if file is not None}
    url = server.url
    if server.password_file is not None:
        found = urlsplit(url)
        password = quote(server.password_file.read_text(encoding="utf-8").strip(), safe="")
        host = found.netloc.rpartition("@")[2]
        url = found._replace(netloc=f"{found.username or ''}:{password}@{host}").geturl()
    return f"{url}?{urlencode(more, quote_via=quote)}" if more else url


def vault_place(server: VaultSpec) -> VaultPlace:
    """Return the same for those who speak with Vault, the inference server among them."""
    return VaultPlace(server.url, server.token_file, server.mount, server.key, server.namespace, server.ca)


def _ask_postgresql(server: PostgresqlSpec) -> str | None:
    import psycopg2

    place = urlsplit(server.url)
    where = f"PostgreSQL at {place.hostname}:{place.port or 5432}"
    if server.passfile is not None and server.passfile.stat().st_mode & 0o077:  # libpq passes over it, and says that there is no password
        return f"passfile {server.passfile} can be read by others, so it is not used; run: chmod 600 {server.passfile}"
    try:
        with closing(psycopg2.connect(postgresql_dsn(server), connect_timeout=_ANSWER_SECONDS)) as connection:
            if connection.server_version < _LEAST_POSTGRESQL:
                return f"{where} is version {connection.server_version // 10000}; this platform needs {_LEAST_POSTGRESQL // 10000} or newer"
            with connection, connection.cursor() as cursor:
                cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended('falaj rooms', 1))")
                for room in ROOMS:
                    cursor.execute(f"CREATE SCHEMA IF NOT EXISTS {room}")
    except psycopg2.errors.InsufficientPrivilege:
        return f"{where} lets {place.username} make no schema; run there: GRANT CREATE ON DATABASE {place.path[1:]} TO {place.username}"
    except psycopg2.Error as error:
        return f"{where} was asked for database {place.path[1:]} as {place.username} and said: {_one_line(error)}"
    return None


def _ask_redis(server: RedisSpec) -> str | None:
    import redis

    place = urlsplit(server.url)
    where = f"Redis at {place.hostname}:{place.port or 6379}"
    try:
        with redis.Redis.from_url(redis_url(server), socket_connect_timeout=_ANSWER_SECONDS, socket_timeout=_ANSWER_SECONDS) as client:
            about: dict[str, Any] = client.info()
    except (redis.RedisError, OSError) as error:
        return f"{where} was asked what it is and said: {_one_line(error)}"
    version = str(about.get("redis_version", "0.0"))
    if tuple(int(part) for part in version.split(".")[:2]) < _LEAST_REDIS:
        return f"{where} is version {version}; this platform needs {'.'.join(map(str, _LEAST_REDIS))} or newer"
    if not about.get("aof_enabled", 0):
        return f"{where} keeps no append-only file, so events that were taken are gone when it is started again; set appendonly yes"
    if about.get("maxmemory", 0) and about.get("maxmemory_policy") != "noeviction":
        return f"{where} drops keys when memory is short (maxmemory-policy {about['maxmemory_policy']}), events with them; set noeviction"
    return None


def _ask_store(server: StoreSpec) -> str | None:
    from botocore.exceptions import BotoCoreError, ClientError

    from resources.kms import KmsKeys
    from resources.s3 import S3

    where, probe = f"the store {server.url} at {server.endpoint}", f"falaj-probe-{uuid.uuid4().hex}"
    try:
        store = S3(server, tries=1)
        place = {"Bucket": store.bucket, "Key": store.key(probe)}
        store.client.put_object(**place, Body=b"1", IfNoneMatch="*")
        try:
            store.client.put_object(**place, Body=b"2", IfNoneMatch="*")
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] not in (409, 412):
                raise
        else:
            return (
                f"{where} lets a key be written first twice (If-None-Match is passed over): commits of tables would be lost; take another"
            )
        finally:
            store.client.delete_object(**place)
        if store.has_kms:
            KmsKeys(store).ids()
    except StateError as error:
        return str(error)
    except (ClientError, BotoCoreError) as error:
        return f"{where} was asked to take an object and said: {_one_line(error)}"
    return None


def _ask_vault(server: VaultSpec) -> str | None:
    from resources.vault import VaultKeys

    try:
        VaultKeys(vault_place(server)).probe()
    except FalajError as error:
        return str(error)
    return None


_ASKED: dict[str, Callable[[Any], str | None]] = {
    "postgresql": _ask_postgresql, "redis": _ask_redis, "store": _ask_store, "vault": _ask_vault,
}  # fmt: skip


def _section(table: str, found: object) -> BaseModel | None:
    try:
        return spec_of(table).model_validate(found)
    except ValidationError:
        return None


def _fault(path: Path, error: Any) -> Fault:
    field = ".".join(str(part) for part in error["loc"])
    if error["type"] == "missing":
        return Fault(str(path), field, "is missing; infra/team/team.toml shows every table and key")
    if error["type"] == "extra_forbidden":
        return Fault(str(path), field, "is no setting; infra/team/team.toml shows every table and key")
    if error["type"] == "path_not_file":
        return Fault(str(path), field, f"there is no file {str(error['input'])!r}; name one that this user can read")
    return Fault(str(path), field, str(error["msg"]).removeprefix("Value error, "))


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def main() -> int:
    """Ask the servers that the environment names, before what needs them starts: `python -m resources.team`."""
    import sys

    from resources.settings import read_settings

    try:
        settings = read_settings()
        if settings.team is None or settings.team_file is None:
            raise StateError("There is no team: FALAJ_ENV is not team, so there are no servers to ask.")
        ask_servers(settings.team, settings.team_file)
    except FalajError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(f"The servers of {settings.team_file} answer, and hold what is needed.\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
