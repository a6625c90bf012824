"""Background processes of a home: web server, daemon, inference server. Each has a record, so that only our own are ever ended."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from platform_assets.errors import StateError
from resources.home import write_atomically

if TYPE_CHECKING:
    from pathlib import Path

    from resources.settings import Home

OWNER = "FALAJ_OWNER"
_PR_SET_PDEATHSIG = 1
_GRACE_SECONDS = 10.0


@dataclass(frozen=True)
class ProcessRecord:
    """A process by pid and start time: a pid alone may be another's by now."""

    name: str
    pid: int
    started: float
    log: str


def start(home: Home, name: str, command: Sequence[str], *, environment: Mapping[str, str], tied: bool) -> ProcessRecord:
    """Start a process in a session of its own, output into logs/; `tied` ends it when this process dies."""
    import psutil

    log = home.logs / f"{name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        process = subprocess.Popen(
            list(command), stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
            env={**environment, OWNER: identify(os.getpid())}, start_new_session=True,
            preexec_fn=_tie_to_parent if tied else _restore_signals,  # noqa: PLW1509 - no threads hold locks these two calls need
        )  # fmt: skip
    record = ProcessRecord(name, process.pid, psutil.Process(process.pid).create_time(), str(log))
    write_atomically(_file(home, name), json.dumps(asdict(record)).encode())
    return record


def _restore_signals() -> None:
    # A shell's background job ignores SIGINT, and Dagster then ignores SIGTERM as well.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _tie_to_parent() -> None:
    _restore_signals()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def running(home: Home, name: str) -> ProcessRecord | None:
    """Return the record of a process of this home that is alive, else None."""
    path = _file(home, name)
    if not path.exists():
        return None
    record = ProcessRecord(**json.loads(path.read_text()))
    return record if _alive(record) else None


def command_of(record: ProcessRecord) -> list[str]:
    """Return the command line of a process that is alive, empty where it ended meanwhile."""
    import psutil

    try:
        return list(psutil.Process(record.pid).cmdline())
    except psutil.Error:
        return []


def stop(home: Home, name: str) -> bool:
    """End a process of this home and its children: SIGTERM, after ten seconds SIGKILL. Return whether one was running."""
    import psutil

    record = running(home, name)
    if record is not None:
        try:
            family = [psutil.Process(record.pid), *psutil.Process(record.pid).children(recursive=True)]
        except psutil.NoSuchProcess:
            family = []
        _end(family)
    _file(home, name).unlink(missing_ok=True)
    return record is not None


def end_orphans(home: Home) -> int:
    """End what a killed `falaj run` of this home left behind: processes whose owner is dead. Return how many."""
    import psutil

    orphans = []
    for process in psutil.process_iter():
        try:
            environment = process.environ()
        except (psutil.Error, OSError):
            continue
        owner = environment.get(OWNER)
        if owner and environment.get("FALAJ_HOME") == str(home.root) and environment.get("FALAJ_TIED") == "1" and not lives(owner):
            orphans.append(process)
    _end(orphans)
    return len(orphans)


def wait_until(
    condition: Callable[[], object], *, seconds: float, what: str, log: Path | str, alive: Callable[[], bool] = lambda: True
) -> None:
    """Poll a callable until it is true; after `seconds`, or once it is not `alive`, raise StateError that names the log to read."""
    deadline = time.monotonic() + seconds
    while not condition():
        if not alive():
            raise StateError(f"{what} ended before it had come up; its last words are in {log}.")
        if time.monotonic() > deadline:
            raise StateError(f"{what} did not come up within {seconds:.0f} s; its last words are in {log}.")
        time.sleep(0.1)


def _end(family: list) -> None:
    import psutil

    for process in family:
        _signal(process, signal.SIGTERM)
    _, stubborn = psutil.wait_procs(family, timeout=_GRACE_SECONDS)
    for process in stubborn:
        _signal(process, signal.SIGKILL)
    psutil.wait_procs(stubborn, timeout=_GRACE_SECONDS)


def _signal(process: object, number: int) -> None:
    import psutil

    try:
        process.send_signal(number)  # type: ignore[attr-defined]
    except psutil.NoSuchProcess:
        return


def identify(pid: int) -> str:
    """Name a process by pid and start time; a pid alone may be another's by now."""
    return f"{pid}:{_started(pid)}"


def lives(identity: str) -> bool:
    """Whether the process of this name still runs."""
    pid, _, started = identity.partition(":")
    return pid.isdecimal() and bool(started) and _started(int(pid)) == started


def _started(pid: int) -> str:
    import psutil

    try:
        process = psutil.Process(pid)
        return "" if process.status() == psutil.STATUS_ZOMBIE else f"{process.create_time():.2f}"
    except psutil.NoSuchProcess:
        return ""


def _alive(record: ProcessRecord) -> bool:
    import psutil

    try:
        process = psutil.Process(record.pid)
        return abs(process.create_time() - record.started) < 1 and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _file(home: Home, name: str) -> Path:
    return home.run / f"{name}.json"
