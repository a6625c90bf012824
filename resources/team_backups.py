"""What a team's servers hold, for a backup of its home, and back into empty ones: PostgreSQL, the queues in Redis, the store's objects.

What was written last is copied first, as in `backups.py`, and so what a copied record names is in the archive. The inbox comes before the
database: an event is answered for once its run stands there, so that one in both is known by its run key, and one in neither would be lost.
The outbox comes after it, since the database says how far the audit log was told.
"""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from platform_assets.errors import BackupError
from platform_assets.stages.training.heartbeat import connect_postgresql
from resources.events import INBOX, OUTBOX
from resources.s3 import S3
from resources.team import ROOMS, postgresql_dsn, redis_url

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from platform_assets.specs.team import TeamSpec

ROOM = "team"
_DATABASE, _STORE = f"{ROOM}/postgresql.dump", f"{ROOM}/store/"
_MARK = "falaj_restoring"  # a schema whose comment says which backup is on its way into these servers
_ANSWER_SECONDS = 30
_BATCH = 1000
# Names of what is written last and makes the rest count; the objects that it names are there by then.
_FIRST = ("artefacts/memo/", "artefacts/lists/")


class TeamServers:
    """The servers of one settings file."""

    def __init__(self, team: TeamSpec) -> None:
        self._team = team
        self._store = S3(team.store) if team.store else None

    @property
    def audit(self) -> str:
        """DSN of the audit log."""
        return postgresql_dsn(self._team.postgresql, "falaj")

    @property
    def cached(self) -> tuple[str, ...]:
        """Folders of the home that are made again from the store."""
        return ("artefacts",) if self._store is not None else ()

    def copy_records(self, beside: Path) -> Iterator[tuple[str, Path]]:
        """Yield names and files of inbox, database and outbox, in this order; to be taken before everything else."""
        yield _queue_name(INBOX), self._dump_queue(INBOX, beside)
        yield _DATABASE, self._dump_database(beside)
        yield _queue_name(OUTBOX), self._dump_queue(OUTBOX, beside)

    def copy_objects(self, beside: Path) -> Iterator[tuple[str, Path]]:
        """Yield names and files of the store's objects."""
        if self._store is None:
            return
        copy = beside / "object"
        for name in sorted(self._store.sizes(""), key=_turn):
            if self._store.download(name, copy):  # or retention removed it meanwhile
                yield _STORE + name, copy

    def check_empty(self, backup: str) -> None:
        """Raise BackupError where a server holds anything of ours already, unless a kill left it while this backup was restored into it."""
        if self._marked() == backup:
            return
        wrong = [*self._strange_tables(), *self._strange_keys(), *self._strange_objects()]
        if wrong:
            more = f" (and {len(wrong) - 1} more)" if wrong[1:] else ""
            raise BackupError(f"{wrong[0]}{more}; a backup is restored into empty servers, name others in FALAJ_TEAM or empty these")

    def lay(self, found: Path, *, backup: str) -> None:
        """Fill servers that were found empty from an unpacked backup; killed before `finish`, it can be done again."""
        self._change(f"CREATE SCHEMA IF NOT EXISTS {_MARK}")
        self._change(f"COMMENT ON SCHEMA {_MARK} IS %s", backup)
        if self._store is not None:
            place = found / _STORE
            for file in sorted(
                (file for file in place.rglob("*") if file.is_file()), key=lambda one: _turn(_key(one, place)), reverse=True
            ):
                self._store.upload(file, _key(file, place))
        for queue in (INBOX, OUTBOX):
            self._lay_queue(found / _queue_name(queue))
        self._lay_database(found / _DATABASE)

    def finish(self) -> None:
        """Say that all is in place: from now on what the servers hold is somebody's."""
        self._change(f"DROP SCHEMA {_MARK}")

    def _dump_database(self, beside: Path) -> Path:
        file = beside / "postgresql.dump"
        schemas = [f"--schema={room}" for room in ROOMS]
        self._call("pg_dump", "--format=custom", "--strict-names", "--no-owner", "--no-privileges", *schemas, "--file", str(file))
        return file

    def _lay_database(self, file: Path) -> None:
        # They are empty, made at a start, or of a try before.
        self._change("; ".join(f"DROP SCHEMA IF EXISTS {room} CASCADE" for room in ROOMS))
        self._call("pg_restore", "--no-owner", "--no-privileges", "--single-transaction", "--exit-on-error", str(file))

    def _change(self, statement: str, *values: str) -> None:
        with closing(connect_postgresql(postgresql_dsn(self._team.postgresql))) as connection, connection, connection.cursor() as cursor:
            cursor.execute(statement, values or None)

    def _marked(self) -> str | None:
        """Return which backup is being restored into these servers, or was when it was killed."""
        with closing(connect_postgresql(postgresql_dsn(self._team.postgresql))) as connection, connection, connection.cursor() as cursor:
            cursor.execute("SELECT obj_description(oid, 'pg_namespace') FROM pg_namespace WHERE nspname = %s", (_MARK,))
            row = cursor.fetchone()
            return str(row[0]) if row else None

    def _call(self, program: str, *arguments: str) -> None:
        path = shutil.which(program)
        if path is None:
            raise BackupError(f"there is no {program} on this machine; install PostgreSQL's client programs (Debian's postgresql-client)")
        done = subprocess.run(
            [path, *arguments, "--dbname", postgresql_dsn(self._team.postgresql)], capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise BackupError(f"{program} ended with {done.returncode}: {' '.join(done.stderr.split())[-500:]}")

    def _strange_tables(self) -> list[str]:
        with closing(connect_postgresql(postgresql_dsn(self._team.postgresql))) as connection, connection, connection.cursor() as cursor:
            cursor.execute(
                "SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
                " WHERE n.nspname = ANY(%s) ORDER BY 1, 2", (list(ROOMS),),
            )  # fmt: skip
            return [f"PostgreSQL has {schema}.{name} already" for schema, name in cursor.fetchall()]

    def _redis(self) -> Any:
        import redis

        return redis.Redis.from_url(redis_url(self._team.redis), socket_connect_timeout=_ANSWER_SECONDS, socket_timeout=_ANSWER_SECONDS)

    def _dump_queue(self, queue: str, beside: Path) -> Path:
        """Write a queue's keys: first which ids are known, then all streams at one moment. A stream's dump has its groups in it."""
        file, pattern = beside / f"{queue}.jsonl", _pattern(queue)
        with file.open("w", encoding="utf-8") as target, closing(self._redis()) as server:
            streams = set(server.scan_iter(match=pattern, _type="stream"))
            waiting = [key for key in server.scan_iter(match=pattern, count=_BATCH) if key not in streams]
            for first in range(0, len(waiting), _BATCH):
                _write_dumps(target, server, waiting[first : first + _BATCH])
            _write_dumps(target, server, sorted(streams))
        return file

    def _strange_keys(self) -> list[str]:
        with closing(self._redis()) as server:
            found = [key.decode() for queue in (INBOX, OUTBOX) for key in server.scan_iter(match=_pattern(queue), count=_BATCH)]
        return [f"Redis has {key} already" for key in sorted(found)]

    def _lay_queue(self, file: Path) -> None:
        import redis

        with closing(self._redis()) as server:
            for line in _read_dumps(file):
                expires = line["expires_at_ms"]
                try:
                    server.restore(line["key"], expires or 0, base64.b64decode(line["dump"]), replace=True, absttl=bool(expires))
                except redis.ResponseError as error:
                    raise BackupError(
                        f"Redis did not take {line['key']} ({error}); it must be of the version of the backup, or newer"
                    ) from error

    def _strange_objects(self) -> list[str]:
        return [f"the store has {name} already" for name in sorted(self._store.sizes(""))] if self._store else []


def _turn(name: str) -> tuple[int, str]:
    """Order of copying; laying down goes the other way, so that what makes the rest count comes last again."""
    for number, first in enumerate(_FIRST):
        if name.startswith(first):
            return number, name
    return (len(_FIRST) if "/_delta_log/" in name else len(_FIRST) + 1), name


def _key(file: Path, place: Path) -> str:
    return file.relative_to(place).as_posix()


def _queue_name(queue: str) -> str:
    return f"{ROOM}/{queue}.jsonl"


def _pattern(queue: str) -> str:
    return f"falaj:events:{queue}*"


def _write_dumps(target: Any, server: Any, keys: list[bytes]) -> None:
    """Write keys as they are at one moment (MULTI), with the time at which each expires."""
    with server.pipeline(transaction=True) as together:
        for key in keys:
            together.dump(key)
            together.pttl(key)
        answers = together.execute()
        now = _now_ms(server)
    for key, dump, left in zip(keys, answers[::2], answers[1::2], strict=True):
        if dump is not None:
            line = {"key": key.decode(), "expires_at_ms": now + left if left > 0 else None, "dump": base64.b64encode(dump).decode()}
            target.write(json.dumps(line) + "\n")


def _now_ms(server: Any) -> int:
    seconds, micros = server.time()
    return int(seconds) * 1000 + int(micros) // 1000


def _read_dumps(file: Path) -> Iterator[Mapping[str, Any]]:
    with file.open(encoding="utf-8") as source:
        yield from map(json.loads, source)
