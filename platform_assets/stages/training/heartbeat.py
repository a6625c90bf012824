"""A lease on GPUs, kept alive by the process that uses them. Standard library only: it begins before torch is imported.

The table and its queue are in resources.leases; here is what one holder needs: how a lease is found and renewed.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from platform_assets.errors import TrainingError

SQLITE, POSTGRESQL = "sqlite:///", ("postgresql://", "postgres://")
BEATS = 4  # renewals within a lease's time to live: three may be missed
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")  # proc(5)
_RENEW_SQLITE = "UPDATE leases SET ends = ?, boot = ? WHERE token = ?"
_RENEW_POSTGRESQL = "UPDATE leases SET ends = extract(epoch FROM clock_timestamp()) + %s WHERE token = %s"


@dataclass(frozen=True)
class LeaseFile:
    """lease.json: the table (`sqlite:////absolute/path` or `postgresql://...`), this holder's token, its time to live in seconds."""

    dsn: str
    token: str
    seconds: float


def read_lease(path: Path) -> LeaseFile:
    """Read lease.json; anything else in its place is a TrainingError."""
    try:
        return LeaseFile(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise TrainingError(f"{path} is no lease: {error}; it holds dsn, token and seconds") from error


def boot_time() -> float:
    """Seconds since the machine started, sleep included: no clock that somebody sets moves it."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def boot_id() -> str:
    """What names this start of the machine; empty where the kernel does not say."""
    return _BOOT_ID.read_text().strip() if _BOOT_ID.exists() else ""


def connect_postgresql(dsn: str) -> Any:
    """Open a connection on which nothing lasts long; the driver is loaded only where a lease asks for it."""
    import psycopg2
    from psycopg2.extensions import parse_dsn

    # A process that is stopped in the middle of something must not stop everybody else.
    limits = f"{parse_dsn(dsn).get('options', '')} -c statement_timeout=5000 -c idle_in_transaction_session_timeout=10000"
    return psycopg2.connect(dsn, connect_timeout=5, options=limits, keepalives_idle=5, keepalives_interval=2)


def connect(dsn: str) -> Any:
    """Open the table of leases for renewals. Raises sqlite3.Error or psycopg2.Error where it cannot be reached."""
    if not dsn.startswith(SQLITE):
        connection = connect_postgresql(dsn)
        connection.autocommit = True  # begun and ended by the server: no row stays locked by a process that is stopped
        return connection
    file = Path(dsn.removeprefix(SQLITE)).as_uri()
    # Made in one thread and used in another, never in two at once.
    connection = sqlite3.connect(f"{file}?mode=rw", uri=True, timeout=5, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA synchronous=NORMAL")  # no wait for the disk while the file is locked; a restart ends every lease anyway
    return connection


def renew(connection: Any, lease: LeaseFile) -> bool:
    """Give the lease its whole time again; False where it is gone: it ran out and another took the place, or it was given back.

    A lease that ran out while nobody else wanted it comes to life again. Raises sqlite3.Error or psycopg2.Error.
    """
    cursor = connection.cursor()
    if lease.dsn.startswith(SQLITE):
        cursor.execute(_RENEW_SQLITE, (boot_time() + lease.seconds, boot_id(), lease.token))
    else:
        cursor.execute(_RENEW_POSTGRESQL, (lease.seconds, lease.token))
    return bool(cursor.rowcount == 1)


def ask_this_process_to_stop() -> None:
    """Send this process the signal of a preemption: it saves its state and ends."""
    os.kill(os.getpid(), signal.SIGTERM)


class Heartbeat:
    """A thread that renews a lease, and says so when it is lost. `sentence` tells why, once `lost` is true."""

    def __init__(self, lease: LeaseFile, *, on_lost: Callable[[], None] = ask_this_process_to_stop) -> None:
        self._lease = lease
        self._on_lost = on_lost
        self._over = threading.Event()
        self._connection: Any = None  # kept open: the last one to close an SQLite file would have to tidy it up, and lock it for that
        self.lost = False
        self.sentence = ""
        self._thread = threading.Thread(target=self._run, name="lease heartbeat", daemon=True)

    def start(self) -> None:
        """Renew at once, before this returns, and then every quarter of the time to live."""
        self._safe_until = boot_time() + self._lease.seconds
        self._beat()
        self._thread.start()

    def stop(self) -> None:
        """Renew no more; the holder gives the lease back, or it runs out."""
        self._over.set()
        self._thread.join(timeout=self._lease.seconds)

    def _run(self) -> None:
        while not self.lost and not self._over.wait(self._lease.seconds / BEATS):
            self._beat()
        self._disconnect()

    def _beat(self) -> None:
        held = self._try_to_renew()
        if held:
            self._safe_until = boot_time() + self._lease.seconds
        elif held is False:
            self._lose("it was given to another")
        elif boot_time() + self._lease.seconds / BEATS > self._safe_until:
            self._lose(f"its table was out of reach for {self._lease.seconds:g} s")

    def _try_to_renew(self) -> bool | None:
        """None: the table could not be asked, and the next beat connects anew."""
        errors: list[type[Exception]] = [sqlite3.Error]
        if not self._lease.dsn.startswith(SQLITE):
            import psycopg2

            errors.append(psycopg2.Error)
        try:
            if self._connection is None:
                self._connection = connect(self._lease.dsn)
            return renew(self._connection, self._lease)
        except tuple(errors):
            self._disconnect()
            return None

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _lose(self, why: str) -> None:
        self.lost, self.sentence = True, f"The lease on the GPUs is lost: {why}."
        self._on_lost()


def start_heartbeat(path: Path, *, on_lost: Callable[[], None] = ask_this_process_to_stop) -> Heartbeat:
    """Read lease.json and keep that lease alive until `stop`."""
    heartbeat = Heartbeat(read_lease(path), on_lost=on_lost)
    heartbeat.start()
    return heartbeat
