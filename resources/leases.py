"""Leases on slots of a pool (GPUs): weighted, all or nothing, first come first served, free again soon after their holder died.

A lease lives as long as its holder renews it (`stages.training.heartbeat`, in the trainer itself). Nobody has to clean up: whoever asks
next drops what has run out, in the same transaction in which slots are given.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from platform_assets.errors import LeaseError, StateError
from platform_assets.specs.leases import Lease, LeaseAsk
from platform_assets.stages.training.heartbeat import POSTGRESQL, SQLITE, LeaseFile, boot_id, boot_time, connect, connect_postgresql, renew
from resources.state import open_state, write_alone

if TYPE_CHECKING:
    from platform_assets import ports

LEASE_SECONDS = 20.0  # a killed trainer's GPUs are free again after this, and at most one more look at the table
_HEAD_START_SECONDS = 60.0
_MOST_HEAD_START = 24 * 60  # points: a day, so that nobody waits for ever behind what matters more
# The primary key of lease_slots holds the promise even against a fault in the code below: no slot is given twice.
_SCHEMA = """
CREATE TABLE IF NOT EXISTS leases (
    token TEXT PRIMARY KEY, pool TEXT NOT NULL, tenant TEXT NOT NULL, profile TEXT NOT NULL, holder TEXT NOT NULL,
    ends DOUBLE PRECISION NOT NULL, boot TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS lease_slots (pool TEXT NOT NULL, slot INTEGER NOT NULL, token TEXT NOT NULL, PRIMARY KEY (pool, slot));
CREATE TABLE IF NOT EXISTS lease_tickets (
    ticket TEXT PRIMARY KEY, pool TEXT NOT NULL, slots INTEGER NOT NULL, tenant TEXT NOT NULL, profile TEXT NOT NULL, quota INTEGER,
    place DOUBLE PRECISION NOT NULL, ends DOUBLE PRECISION NOT NULL, boot TEXT NOT NULL, holder TEXT NOT NULL);
"""


class _Unit(Protocol):
    """One transaction that no other of the same pool overlaps; `now` and `boot` are the table's clock."""

    now: float
    boot: str

    def run(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """Run one statement (`?` placeholders); return its rows."""


class _LeaseTable:
    """The rules, over any SQL database that gives one transaction at a time."""

    dsn: str

    def _alone(self, pool: str) -> AbstractContextManager[_Unit]:
        raise NotImplementedError

    def _reaching(self) -> AbstractContextManager[None]:
        raise NotImplementedError

    def take(self, ask: LeaseAsk, *, seconds: float = LEASE_SECONDS) -> Lease | None:
        """Give all the slots asked for, or none: then the place in the queue is kept for `seconds`, until the next ask.

        Strictly in turn: a big wish is not overtaken by small ones that would fit. Only who waits for their own tenant's quota holds up
        nobody. Raises LeaseError for a wish that can never come true, StateError where the table is out of reach.
        """
        _check(ask)
        with self._alone(ask.pool) as unit:
            _forget_the_dead(unit, ask.pool)
            mine = [lease for lease in _leases(unit, ask.pool) if lease.token == ask.ticket]
            if mine:
                unit.run("UPDATE leases SET ends = ?, boot = ? WHERE token = ?", unit.now + seconds, unit.boot, ask.ticket)
                return mine[0]
            _queue_up(unit, ask, seconds)
            taken = {slot for (slot,) in unit.run("SELECT slot FROM lease_slots WHERE pool = ?", ask.pool)}
            free = [slot for slot in range(ask.capacity) if slot not in taken]
            if len(free) < ask.slots or _first_in_turn(unit, ask) != ask.ticket:
                return None
            return _give(unit, ask, free[: ask.slots], seconds)

    def withdraw(self, ticket: str, *, pool: str) -> None:
        """Leave the queue."""
        with self._alone(pool) as unit:
            unit.run("DELETE FROM lease_tickets WHERE ticket = ?", ticket)

    def renew(self, token: str, *, seconds: float = LEASE_SECONDS) -> bool:
        """Give the lease its whole time again; False where it is gone."""
        with self._reaching(), closing(connect(self.dsn)) as connection:
            return renew(connection, LeaseFile(self.dsn, token, seconds))

    def release(self, token: str, *, pool: str) -> bool:
        """Give the slots back; False where the lease is gone already."""
        with self._alone(pool) as unit:
            unit.run("DELETE FROM lease_slots WHERE token = ?", token)
            return bool(unit.run("DELETE FROM leases WHERE token = ? RETURNING token", token))

    def held(self, pool: str) -> list[Lease]:
        """Return the leases in force, oldest slots first."""
        with self._alone(pool) as unit:
            _forget_the_dead(unit, pool)
            return _leases(unit, pool)

    def waiting(self, pool: str) -> list[str]:
        """Return the holders-to-be in the queue, in turn."""
        with self._alone(pool) as unit:
            _forget_the_dead(unit, pool)
            return [row[0] for row in unit.run("SELECT holder FROM lease_tickets WHERE pool = ? ORDER BY place, ticket", pool)]


def _check(ask: LeaseAsk) -> None:
    if ask.slots < 1:
        raise LeaseError(f"{ask.holder or ask.ticket} asked for {ask.slots} slots of pool {ask.pool!r}; a lease has at least one.")
    limits = [(ask.capacity, f"pool {ask.pool!r} has {ask.capacity}; declare more in the compute catalogue's `gpus`, or ask for fewer")]
    if ask.quota is not None:
        text = (
            f"tenant {ask.tenant!r} may hold {ask.quota} of profile {ask.profile!r}; raise the profile's `tenant_quota`, or ask for fewer"
        )
        limits.append((ask.quota, text))
    for most, text in limits:
        if ask.slots > most:
            raise LeaseError(f"{ask.holder or ask.ticket} asked for {ask.slots} slots, but {text}.")


def _forget_the_dead(unit: _Unit, pool: str) -> None:
    over = "pool = ? AND (ends < ? OR boot <> ?)"
    for (token,) in unit.run(f"DELETE FROM leases WHERE {over} RETURNING token", pool, unit.now, unit.boot):  # noqa: S608 - our own words
        unit.run("DELETE FROM lease_slots WHERE token = ?", token)
    unit.run(f"DELETE FROM lease_tickets WHERE {over}", pool, unit.now, unit.boot)  # noqa: S608 - our own words


def _leases(unit: _Unit, pool: str) -> list[Lease]:
    rows = unit.run(
        "SELECT l.token, l.tenant, l.profile, l.holder, s.slot FROM leases l JOIN lease_slots s ON s.token = l.token "
        "WHERE l.pool = ? ORDER BY s.slot",
        pool,
    )
    slots: dict[tuple[str, ...], list[int]] = {}
    for *lease, slot in rows:
        slots.setdefault(tuple(lease), []).append(slot)
    return [Lease(token, pool, tuple(numbers), tenant, profile, holder) for (token, tenant, profile, holder), numbers in slots.items()]


def _queue_up(unit: _Unit, ask: LeaseAsk, seconds: float) -> None:
    head_start = max(-_MOST_HEAD_START, min(_MOST_HEAD_START, ask.priority)) * _HEAD_START_SECONDS
    unit.run(
        "INSERT INTO lease_tickets VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) "
        "ON CONFLICT (ticket) DO UPDATE SET ends = excluded.ends, boot = excluded.boot",
        ask.ticket, ask.pool, ask.slots, ask.tenant, ask.profile, ask.quota,
        unit.now - head_start, unit.now + seconds, unit.boot, ask.holder,
    )  # fmt: skip


def _first_in_turn(unit: _Unit, ask: LeaseAsk) -> str:
    """Who is next, of those who wait for the pool and not for their own tenant's quota."""
    held: dict[tuple[str, str], int] = {}
    for lease in _leases(unit, ask.pool):
        held[lease.profile, lease.tenant] = held.get((lease.profile, lease.tenant), 0) + len(lease.slots)
    rows = unit.run("SELECT ticket, slots, tenant, profile, quota FROM lease_tickets WHERE pool = ? ORDER BY place, ticket", ask.pool)
    in_turn = (
        ticket
        for ticket, slots, tenant, profile, quota in rows
        if slots <= ask.capacity and (quota is None or held.get((profile, tenant), 0) + slots <= quota)
    )
    return next(in_turn, "")


def _give(unit: _Unit, ask: LeaseAsk, slots: list[int], seconds: float) -> Lease:
    values = (ask.ticket, ask.pool, ask.tenant, ask.profile, ask.holder, unit.now + seconds, unit.boot)
    unit.run("INSERT INTO leases (token, pool, tenant, profile, holder, ends, boot) VALUES (?, ?, ?, ?, ?, ?, ?)", *values)
    for slot in slots:
        unit.run("INSERT INTO lease_slots (pool, slot, token) VALUES (?, ?, ?)", ask.pool, slot, ask.ticket)
    unit.run("DELETE FROM lease_tickets WHERE ticket = ?", ask.ticket)
    return Lease(ask.ticket, ask.pool, tuple(slots), ask.tenant, ask.profile, ask.holder)


class SqliteLeaseTable(_LeaseTable):
    """For the processes of one machine, which must be the same for all: time is counted from its start."""

    def __init__(self, path: Path, *, clock: Callable[[], float] = boot_time) -> None:
        self.dsn = f"{SQLITE}{path.absolute()}"
        self._path = path.absolute()
        self._clock = clock

    @contextmanager
    def _alone(self, pool: str) -> Iterator[_Unit]:
        del pool  # one writer a file
        with self._reaching(), open_state(self._path, schema=_SCHEMA, durable=False) as connection, write_alone(connection):
            yield _SqliteUnit(connection, self._clock(), boot_id())

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise StateError(f"{self.dsn} could not be asked for leases: {error}; set FALAJ_LEASES to a table that can be.") from error


class _SqliteUnit:
    def __init__(self, connection: sqlite3.Connection, now: float, boot: str) -> None:
        self._connection, self.now, self.boot = connection, now, boot

    def run(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        return self._connection.execute(sql, values).fetchall()


class PostgresLeaseTable(_LeaseTable):
    """For many machines: time is the server's, so the machines' clocks need not agree."""

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn
        self._prepared = False

    @contextmanager
    def _alone(self, pool: str) -> Iterator[_Unit]:
        with self._reaching(), closing(connect_postgresql(self.dsn)) as connection, connection, connection.cursor() as cursor:
            self._prepare(cursor)
            cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 1))", (f"falaj leases {pool}",))
            cursor.execute("SELECT extract(epoch FROM clock_timestamp())::float8")
            yield _PostgresUnit(cursor, cursor.fetchone()[0])

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        import psycopg2

        try:
            yield
        except psycopg2.Error as error:
            where = self.dsn.rpartition("@")[2]  # without the password
            text = f"PostgreSQL at {where} could not be asked for leases: {' '.join(str(error).split())}; look at FALAJ_LEASES."
            raise StateError(text) from error

    def _prepare(self, cursor: Any) -> None:
        # CREATE TABLE IF NOT EXISTS is no protection against another's at the same moment: PostgreSQL then raises UniqueViolation.
        if not self._prepared:
            cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended('falaj leases schema', 1))")
            cursor.execute(_SCHEMA)
            self._prepared = True


class _PostgresUnit:
    boot = ""

    def __init__(self, cursor: Any, now: float) -> None:
        self._cursor, self.now = cursor, now

    def run(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        self._cursor.execute(sql.replace("?", "%s"), values)
        return self._cursor.fetchall() if self._cursor.description else []


def open_leases(dsn: str) -> ports.LeaseTable:
    """Open the table that a DSN names: `sqlite:////absolute/path` or `postgresql://...`."""
    if dsn.startswith(POSTGRESQL):
        return PostgresLeaseTable(dsn)
    if dsn.startswith(f"{SQLITE}/"):
        return SqliteLeaseTable(Path(dsn.removeprefix(SQLITE)))
    raise StateError(f"FALAJ_LEASES={dsn!r} names no table of leases; write sqlite:////absolute/path or postgresql://user@host/database.")
