"""A program that outlives the Dagster process that started it: found again by its folder, heard through files, ended on demand.

Dagster's own Pipes client ends with its process, and its file reader truncates at start and deletes at the end: whoever comes later
has lost what was said. Here messages stay where they are, and how far they have been read is on disk beside them.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
from dagster._check import CheckError
from dagster._core.errors import DagsterError, DagsterPipesExecutionError  # the second has no public name
from dagster_pipes import PipesContextData, PipesDefaultContextLoader, PipesDefaultMessageWriter, PipesParams

from resources.home import write_atomically
from resources.processes import OWNER

MARK = "FALAJ_DETACHED"
_RECORD, _MESSAGES, _READ, _CONTEXT, OUTPUT = "process.json", "messages.jsonl", "messages.read", "context.json", "output.log"
_LOOK_SECONDS = 0.25
_LOG = logging.getLogger(__name__)
_UNREADABLE = (ValueError, LookupError, TypeError, AttributeError, CheckError, DagsterError, DagsterPipesExecutionError)
_READER_ENDS_SECONDS = 10.0


@dataclass(frozen=True)
class Program:
    """A started program, by pid and start time: a pid alone may be another's by now."""

    pid: int
    started: float
    child: subprocess.Popen[bytes] | None = None  # only of the process that started it

    @property
    def alive(self) -> bool:
        """Whether it still runs; a zombie does not."""
        import psutil

        if self.child is not None:
            return self.child.poll() is None
        try:
            process = psutil.Process(self.pid)
            return abs(process.create_time() - self.started) < 1 and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    @property
    def code(self) -> int | None:
        """Exit status as subprocess gives it; None while it runs, and for whoever is not its parent."""
        return self.child.poll() if self.child is not None else None


def start(command: Sequence[str], folder: Path, *, environment: Mapping[str, str]) -> Program:
    """Start a program in a session of its own, marked with its folder, where its output goes."""
    import psutil

    # It is nobody's: neither the orphans' nor the owner's mark of the process that happens to start it may end it.
    ours = {**environment, MARK: str(folder), OWNER: "", "FALAJ_TIED": ""}
    with (folder / OUTPUT).open("ab") as output:
        child = subprocess.Popen(
            list(command), stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env=ours, start_new_session=True,
            preexec_fn=_restore_signals,  # noqa: PLW1509 - no lock is taken there
        )  # fmt: skip
    try:
        began = psutil.Process(child.pid).create_time()
    except psutil.NoSuchProcess:  # it has ended already
        began = 0.0
    write_atomically(folder / _RECORD, json.dumps({"pid": child.pid, "started": began}).encode())
    return Program(child.pid, began, child)


def _restore_signals() -> None:
    # Started with & from a script, Dagster ignores SIGINT, and so would its children. SIGTERM, ignored or held back by whoever starts it,
    # would leave a program that nobody can ask to end.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def find(folder: Path) -> Program | None:
    """Return the program of this folder that is alive, whoever started it; None where none is."""
    if (folder / _RECORD).exists():
        program = Program(**json.loads((folder / _RECORD).read_text()))
        if program.alive:
            return program
    # Whoever started it may have been killed before it could write the record.
    for process in _marked(folder):
        try:
            if os.getsid(process.pid) == process.pid:
                return Program(process.pid, process.create_time())
        except ProcessLookupError:
            continue
    return None


def stop(program: Program, *, seconds: float) -> bool:
    """Ask a program to end (SIGTERM) and give it time; False where it had to be killed."""
    import psutil

    def gone() -> bool:
        return not program.alive

    try:
        os.kill(program.pid, signal.SIGTERM)
        if _wait(gone, seconds=seconds):
            return True
        family = psutil.Process(program.pid).children(recursive=True)
        os.kill(program.pid, signal.SIGKILL)
    except (ProcessLookupError, psutil.NoSuchProcess):
        return True
    for member in family:
        _kill(member)
    _wait(gone, seconds=seconds)
    return False


def end_leftovers(folder: Path) -> int:
    """Kill what a dead program of this folder left behind (workers of a killed torchrun); return how many."""
    left = _marked(folder)
    for process in left:
        _kill(process)
    return len(left)


def _wait(gone: Any, *, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not gone():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def _marked(folder: Path) -> list[Any]:
    import psutil

    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == str(folder) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


def _kill(process: Any) -> None:
    import psutil

    try:
        process.kill()
    except psutil.NoSuchProcess:
        return


class KeptContext(dg.PipesContextInjector):
    """Writes what the program is told about its run into its folder, and leaves it there."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / _CONTEXT

    @contextmanager
    def inject_context(self, context_data: PipesContextData) -> Iterator[PipesParams]:
        """Write, and say where."""
        write_atomically(self._path, json.dumps(context_data).encode())
        yield {PipesDefaultContextLoader.FILE_PATH_KEY: str(self._path)}

    def no_messages_debug_text(self) -> str:
        """Say what was tried."""
        return f"The program was told of its run in {self._path}."


class KeptMessages(dg.PipesMessageReader):
    """Reads a program's messages from where the last reader stopped; a message that cannot be read is skipped, and never fails a run."""

    expected_writer_count = 1

    def __init__(self, folder: Path) -> None:
        self._messages, self._read = folder / _MESSAGES, folder / _READ

    @contextmanager
    def read_messages(self, handler: Any) -> Iterator[PipesParams]:
        """Read in a thread until the block ends, and then what is left."""
        self._messages.touch()
        over = threading.Event()
        thread = threading.Thread(target=self._follow, args=(handler, over), name="messages", daemon=True)
        if self._offset() > 0:
            handler.handle_message({"method": "opened", "params": {}})  # an earlier run has heard it
        thread.start()
        try:
            yield {PipesDefaultMessageWriter.FILE_PATH_KEY: str(self._messages)}
        finally:
            over.set()
            thread.join(_READER_ENDS_SECONDS)

    def no_messages_debug_text(self) -> str:
        """Say what was tried."""
        return f"Its messages are looked for in {self._messages}, its output is in {OUTPUT} beside it."

    def _follow(self, handler: Any, over: threading.Event) -> None:
        while True:
            ending = over.is_set()  # looked at before reading: what came until then is still read
            lines, offset = self._new_lines()
            for line in lines:
                self._hand_over(handler, line)
            if lines:  # only now: a reader killed in between leaves them to the next one
                write_atomically(self._read, str(offset).encode())
            if ending:
                return
            over.wait(_LOOK_SECONDS)

    def _new_lines(self) -> tuple[list[bytes], int]:
        """Whole lines that were not read yet, and how far they reach."""
        offset = self._offset()
        try:
            with self._messages.open("rb") as file:
                if os.fstat(file.fileno()).st_size < offset:  # somebody cut the file: what comes from now on is new
                    offset = 0
                file.seek(offset)
                whole, newline, _ = file.read().rpartition(b"\n")
        except FileNotFoundError:
            return [], offset
        return (whole.split(b"\n"), offset + len(whole) + 1) if newline else ([], offset)

    def _offset(self) -> int:
        text = self._read.read_text() if self._read.exists() else ""
        return int(text) if text.isdecimal() else 0

    def _hand_over(self, handler: Any, line: bytes) -> None:
        try:
            handler.handle_message(json.loads(line))
        except _UNREADABLE as error:
            _LOG.warning("skipped a message of %s: %r", self._messages, error)
