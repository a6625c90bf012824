"""What every step asked for, used and cost, in SQLite or PostgreSQL. Who may spend how much is judged in stages/admission.

A row is written when a step has lasted for a moment and again at every beat, so that whatever kills the process, its cost up to the last
beat stands there already: nobody has to close the books of the dead. A step that is over sooner is written once. Promises to admitted runs
stand beside, given one at a time.
"""

from __future__ import annotations

import logging
import resource
import sqlite3
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import astuple
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from platform_assets.errors import OutageError, StateError
from platform_assets.specs.spending import NOBODY, Asked, Entry, Month, Outcome, Payer, Spending, Used
from platform_assets.stages.training.heartbeat import POSTGRESQL, SQLITE, connect_postgresql
from resources.outages import is_outage
from resources.state import open_state, write_alone

if TYPE_CHECKING:
    import psutil

FIRST_BEAT_SECONDS, BEAT_SECONDS = 0.5, 5.0
_LOG = logging.getLogger(__name__)
SCHEMA = """
CREATE TABLE IF NOT EXISTS spending (
    id TEXT PRIMARY KEY, run_id TEXT NOT NULL, tenant TEXT NOT NULL, model TEXT NOT NULL, stage TEXT NOT NULL,
    profile TEXT NOT NULL, region TEXT NOT NULL, price_aed_per_hour DOUBLE PRECISION NOT NULL, nodes INTEGER NOT NULL,
    cpu DOUBLE PRECISION, memory_bytes BIGINT, gpus INTEGER NOT NULL,
    began DOUBLE PRECISION NOT NULL, wall_seconds DOUBLE PRECISION NOT NULL, cpu_seconds DOUBLE PRECISION NOT NULL, outcome TEXT NOT NULL,
    peak_rss_bytes BIGINT, gpu_utilisation DOUBLE PRECISION, peak_gpu_memory_bytes BIGINT, peak_memory_bytes BIGINT,
    cpu_cores_mean DOUBLE PRECISION, cpu_cores_p95 DOUBLE PRECISION, gpus_seen INTEGER, data_wait DOUBLE PRECISION,
    seconds_watched DOUBLE PRECISION, beat DOUBLE PRECISION NOT NULL);
CREATE INDEX IF NOT EXISTS spending_model ON spending (model, stage, began);
CREATE INDEX IF NOT EXISTS spending_began ON spending (began);
CREATE INDEX IF NOT EXISTS spending_run ON spending (run_id);
CREATE TABLE IF NOT EXISTS promises (
    run_id TEXT NOT NULL, tenant TEXT NOT NULL, model TEXT NOT NULL, aed DOUBLE PRECISION NOT NULL, at DOUBLE PRECISION NOT NULL,
    PRIMARY KEY (run_id, tenant, model));
"""
_FIELDS = (
    "run_id, tenant, model, stage, profile, region, price_aed_per_hour, nodes, cpu, memory_bytes, gpus, began, wall_seconds, "
    "cpu_seconds, outcome, peak_rss_bytes, gpu_utilisation, peak_gpu_memory_bytes, peak_memory_bytes, cpu_cores_mean, cpu_cores_p95, "
    "gpus_seen, data_wait, seconds_watched"
)
_GROWING = (*_FIELDS.split(", ")[12:], "beat")  # of an entry that stands already
_WRITE = (
    f"INSERT INTO spending (id, {_FIELDS}, beat) VALUES (?{', ?' * (_FIELDS.count(',') + 2)}) "  # noqa: S608 - our own words
    f"ON CONFLICT (id) DO UPDATE SET {', '.join(f'{name} = excluded.{name}' for name in _GROWING)}"
)
_PRICE = "price_aed_per_hour * nodes * wall_seconds / 3600.0"


def cpu_seconds() -> float:
    """User and system CPU of this process and of its children that have ended (getrusage(2))."""
    usages = (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def _cpu_seconds_of_living_children() -> float:
    import psutil

    def spent(process: psutil.Process) -> float:
        try:
            times = process.cpu_times()
        except psutil.Error:
            return 0.0  # it ended meanwhile: getrusage has it
        return float(times.user + times.system)

    return sum(spent(child) for child in psutil.Process().children(recursive=True))


class Unit(Protocol):
    """An open database."""

    def run(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """Run one statement (`?` placeholders); return its rows."""


class Meter:
    """What a measured step may say of itself while it runs. Its beats write the figures so far."""

    def __init__(self, ledger: Ledger, *, run_id: str, tenant: str, model: str, stage: str, asked: Asked) -> None:
        self._ledger, self._whose = ledger, (run_id, tenant, model, stage)
        self._lock = threading.Lock()
        self._reused = False
        self._waits_since: float | None = None
        self._open(asked)

    def use(self, asked: Asked) -> None:
        """Go on with other resources, as a retry on a larger profile does: what came before is closed at its own price, as failed."""
        with self._lock:
            self._write("failed")
            self._open(asked)

    def add(self, *, wall_seconds: float = 0.0, cpu_seconds: float = 0.0) -> None:
        """Count time that was spent outside of this process, such as that of a trainer which outlived the run that began it."""
        with self._lock:
            self._more_wall += wall_seconds
            self._more_cpu += cpu_seconds

    def take_over(self, run_id: str, *, until: float, cpu_seconds: float = 0.0) -> None:
        """Count what went on after an earlier run's process died: its last beat is where its own entry ends.

        `until`: epoch seconds; `cpu_seconds`: of the whole program that outlived it, of which its own entry has a part already.
        """
        _, _, model, stage = self._whose
        with self._ledger.opened() as unit:
            ((last, cpu),) = unit.run(
                "SELECT max(began + wall_seconds), sum(cpu_seconds) FROM spending WHERE run_id = ? AND model = ? AND stage = ?",
                run_id, model, stage,
            )  # fmt: skip
        if last is not None:
            self.add(wall_seconds=max(0.0, until - last), cpu_seconds=max(0.0, cpu_seconds - cpu))

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Stop the clock while the step waits for what it will hold: a GPU that another has costs this one nothing."""
        with self._lock:
            self._waits_since = time.perf_counter()
        try:
            yield
        finally:
            with self._lock:
                self._more_wall -= time.perf_counter() - self._waits_since
                self._waits_since = None

    def saw(self, used: Used) -> None:
        """Note what was really used."""
        with self._lock:
            self._used = used

    def reused(self) -> None:
        """Say that the work had been done before: such a step says nothing of what the next one costs."""
        self._reused = True

    def beat(self) -> None:
        """Write the figures so far."""
        with self._lock:
            self._write("open", living=_cpu_seconds_of_living_children())

    def close(self, *, failed: bool) -> None:
        """Write the last figures."""
        with self._lock:
            self._write("failed" if failed else "reused" if self._reused else "done")

    def _open(self, asked: Asked) -> None:
        self._id, self._used = uuid.uuid4().hex, Used()
        self._wall, self._cpu = time.perf_counter(), cpu_seconds()
        self._more_wall = self._more_cpu = 0.0
        self._asked, self._began = asked, time.time()

    def _write(self, outcome: Outcome, *, living: float = 0.0) -> None:
        wall = (self._waits_since or time.perf_counter()) - self._wall + self._more_wall
        cpu = cpu_seconds() - self._cpu + self._more_cpu + living
        asked = self._asked
        row = (
            self._id, *self._whose, asked.profile, asked.region, asked.price_aed_per_hour, asked.nodes, asked.cpu, asked.memory_bytes,
            asked.gpus, self._began, wall, cpu, outcome, *astuple(self._used), time.time(),
        )  # fmt: skip
        with self._ledger.opened() as unit:
            unit.run(_WRITE, *row)


class Ledger:
    """The rules, over any SQL database."""

    def __init__(self, *, beat_seconds: float = BEAT_SECONDS) -> None:
        self._beat_seconds = beat_seconds

    def opened(self) -> AbstractContextManager[Unit]:
        """Open the database for statements that stand alone."""
        raise NotImplementedError

    def alone(self) -> AbstractContextManager[Unit]:
        """Open it for statements that no others come between."""
        raise NotImplementedError

    @contextmanager
    def measure(self, *, model: str, stage: str, run_id: str, tenant: str = NOBODY, asked: Asked | None = None) -> Iterator[Meter]:
        """Measure what happens inside, children included, from the first moment on, also when it fails: it was spent all the same.

        Other threads of this process are counted too; steps that run at once in one process each show the sum.
        """
        meter = Meter(self, run_id=run_id, tenant=tenant, model=model, stage=stage, asked=asked or Asked())
        done = threading.Event()
        beats = threading.Thread(target=self._beat, args=(meter, done), daemon=True)
        beats.start()
        failed = True
        try:
            yield meter
            failed = False
        finally:
            done.set()
            beats.join()
            meter.close(failed=failed)

    def _beat(self, meter: Meter, done: threading.Event) -> None:
        wait = min(FIRST_BEAT_SECONDS, self._beat_seconds)
        while not done.wait(wait):
            wait = self._beat_seconds
            try:
                meter.beat()
            except StateError as error:
                _LOG.warning("A beat of the ledger was lost, the next one makes up for it: %s", error)

    def totals(self, *, since: float = 0.0) -> list[dict[str, Any]]:
        """Return rows {model, stage, runs, wall_seconds, cpu_seconds, gpu_seconds, price_aed} of steps that ran at or after `since`."""
        names = ("model", "stage", "runs", "wall_seconds", "cpu_seconds", "gpu_seconds", "price_aed")
        sql = (
            f"SELECT model, stage, count(DISTINCT run_id), sum(wall_seconds), sum(cpu_seconds), sum(wall_seconds * gpus), sum({_PRICE}) "  # noqa: S608 - our own words
            "FROM spending WHERE beat >= ? GROUP BY model, stage ORDER BY model, min(began)"
        )
        with self.opened() as unit:
            return [dict(zip(names, row, strict=True)) for row in unit.run(sql, since)]

    def entries(self, month: Month) -> list[Entry]:
        """Return every step that began in this month, oldest first."""
        sql = f"SELECT {_FIELDS} FROM spending WHERE began >= ? AND began < ? ORDER BY began, id"  # noqa: S608 - our own words
        with self.opened() as unit:
            return [_read_entry(row) for row in unit.run(sql, *_bounds(month))]

    def history(self, model: str, *, last: int) -> list[Entry]:
        """Return the `last` entries of each stage of a model that did their work to its end, newest first."""
        sql = (
            f"SELECT {_FIELDS} FROM (SELECT s.*, row_number() OVER (PARTITION BY stage ORDER BY began DESC, id) AS place "  # noqa: S608
            "FROM spending s WHERE model = ? AND outcome = 'done') AS ranked WHERE place <= ? ORDER BY stage, place"
        )
        with self.opened() as unit:
            return [_read_entry(row) for row in unit.run(sql, model, last)]

    def spending(self, month: Month) -> Spending:
        """Return what is spent in this month, and promised to runs that were admitted and not settled."""
        with self.opened() as unit:
            return _spending(unit, month, but="")

    def promise(self, run_id: str, *, month: Month, judge: Callable[[Spending], Mapping[Payer, float] | None]) -> None:
        """Let `judge` decide on what all others have spent and were promised, nobody deciding beside it; what it returns is promised.

        None promises nothing, and takes back what was promised to this run before.
        """
        with self.alone() as unit:
            promised = judge(_spending(unit, month, but=run_id))
            unit.run("DELETE FROM promises WHERE run_id = ?", run_id)
            for (tenant, model), aed in (promised or {}).items():
                unit.run("INSERT INTO promises VALUES (?, ?, ?, ?, ?)", run_id, tenant, model, aed, time.time())

    def promised_runs(self) -> dict[str, float]:
        """Return the runs with a promise, and when they got it (epoch seconds)."""
        with self.opened() as unit:
            return {run_id: at for run_id, at in unit.run("SELECT run_id, min(at) FROM promises GROUP BY run_id")}  # noqa: C416 - a typed copy

    def settle(self, run_id: str) -> None:
        """Forget what was promised to a run: it ended, and what it spent stands in its entries."""
        with self.opened() as unit:
            unit.run("DELETE FROM promises WHERE run_id = ?", run_id)


def _spending(unit: Unit, month: Month, *, but: str) -> Spending:
    spent = unit.run(
        f"SELECT tenant, model, sum({_PRICE}) FROM spending WHERE began >= ? AND began < ? GROUP BY tenant, model",  # noqa: S608
        *_bounds(month),
    )
    left = unit.run(
        f"SELECT p.tenant, p.model, p.aed - coalesce((SELECT sum({_PRICE}) FROM spending s "  # noqa: S608 - our own words
        "WHERE s.run_id = p.run_id AND s.tenant = p.tenant AND s.model = p.model), 0) FROM promises p WHERE p.run_id <> ?",
        but,
    )
    promised: dict[Payer, float] = {}
    for tenant, model, aed in left:
        promised[tenant, model] = promised.get((tenant, model), 0.0) + max(0.0, aed)
    return Spending({(tenant, model): aed for tenant, model, aed in spent}, promised)


def _bounds(month: Month) -> tuple[float, float]:
    return month.begins.timestamp(), month.next.begins.timestamp()


def _read_entry(row: tuple[Any, ...]) -> Entry:
    (run_id, tenant, model, stage), asked, (began, wall, cpu, outcome), used = row[:4], row[4:11], row[11:15], row[15:]
    return Entry(run_id, tenant, model, stage, Asked(*asked), began, wall, cpu, outcome, Used(*used))


def open_ledger(dsn: str) -> Ledger:
    """Open the ledger that a DSN names: `sqlite:////absolute/path` or `postgresql://...`."""
    if dsn.startswith(POSTGRESQL):
        return PostgresLedger(dsn)
    if dsn.startswith(f"{SQLITE}/"):
        return SqliteLedger(Path(dsn.removeprefix(SQLITE)))
    raise StateError(f"FALAJ_LEDGER={dsn!r} names no ledger; write sqlite:////absolute/path or postgresql://user@host/database.")


class SqliteUnit:
    """An open SQLite file."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def run(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """Run one statement; return its rows."""
        return self._connection.execute(sql, values).fetchall()


class SqliteLedger(Ledger):
    """In the state file of one machine."""

    def __init__(self, path: Path, *, beat_seconds: float = BEAT_SECONDS) -> None:
        super().__init__(beat_seconds=beat_seconds)
        self._path = path

    @contextmanager
    def opened(self) -> Iterator[Unit]:
        """Open the file; each statement is on disk before it is answered."""
        with self._reaching(), open_state(self._path, schema=SCHEMA) as connection:
            yield SqliteUnit(connection)

    @contextmanager
    def alone(self) -> Iterator[Unit]:
        """Open the file with its write lock held."""
        with self._reaching(), open_state(self._path, schema=SCHEMA) as connection, write_alone(connection):
            yield SqliteUnit(connection)

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            kind = OutageError if is_outage(error) else StateError
            raise kind(f"The ledger in {self._path} could not be used: {error}; free the file or the disk it is on.") from error


class PostgresLedger(Ledger):
    """For many machines: one database, `postgresql://...`."""

    def __init__(self, dsn: str, *, beat_seconds: float = BEAT_SECONDS) -> None:
        super().__init__(beat_seconds=beat_seconds)
        self._dsn = dsn
        self._prepared = False

    @contextmanager
    def opened(self) -> Iterator[Unit]:
        """Open one transaction."""
        import psycopg2

        try:
            with closing(connect_postgresql(self._dsn)) as connection, connection, connection.cursor() as cursor:
                self._prepare(cursor)
                yield _PostgresUnit(cursor)
        except psycopg2.Error as error:
            where = self._dsn.rpartition("@")[2]  # without the password
            kind = OutageError if is_outage(error) else StateError
            raise kind(f"The ledger in PostgreSQL at {where} could not be used: {' '.join(str(error).split())}.") from error

    @contextmanager
    def alone(self) -> Iterator[Unit]:
        """Open one transaction that follows every other such one."""
        with self.opened() as unit:
            unit.run("SELECT pg_advisory_xact_lock(hashtextextended('falaj promises', 1))")
            yield unit

    def _prepare(self, cursor: Any) -> None:
        # CREATE TABLE IF NOT EXISTS is no protection against another's at the same moment: PostgreSQL then raises UniqueViolation.
        if not self._prepared:
            cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended('falaj ledger schema', 1))")
            cursor.execute(SCHEMA)
            self._prepared = True


class _PostgresUnit:
    def __init__(self, cursor: Any) -> None:
        self._cursor = cursor

    def run(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        self._cursor.execute(sql.replace("?", "%s"), values)
        return self._cursor.fetchall() if self._cursor.description else []
