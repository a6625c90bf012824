"""Folders of trainings under way: held by one run at a time, one subfolder a start. What a killed run knew can be read off them.

`<key>/out` is the trainer's OUT, with its checkpoints; `<key>/attempts/<number>` holds how that start was made (attempt.json), what
the trainer said and wrote, and, once it has ended, how (exit.json). The folder goes when its training is stored.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from resources.home import write_atomically

_ATTEMPT, _EXIT = "attempt.json", "exit.json"
_WAIT_SECONDS = 0.5


@dataclass(frozen=True)
class Attempt:
    """One start of a trainer: its folder, and what was decided for it."""

    folder: Path
    number: int
    how: Mapping[str, Any]

    def ended(self) -> dict[str, Any] | None:
        """How it ended, once somebody has noted it."""
        path = self.folder / _EXIT
        return json.loads(path.read_text()) if path.exists() else None

    def note_end(self, record: Mapping[str, Any]) -> None:
        """Note how it ended."""
        write_atomically(self.folder / _EXIT, json.dumps(dict(record)).encode())


@dataclass(frozen=True)
class TrainingFolder:
    """One training's folder, from its first start until its result is stored."""

    root: Path

    @property
    def out(self) -> Path:
        """What the trainer writes."""
        return self.root / "out"

    def attempts(self) -> list[Attempt]:
        """Every start so far, oldest first; one whose record is not whole never started."""
        records = sorted(self.root.glob(f"attempts/*/{_ATTEMPT}"))
        return [Attempt(path.parent, int(path.parent.name), json.loads(path.read_text())) for path in records]

    def open_attempt(self) -> Attempt | None:
        """The newest start, where nobody has noted its end yet: its trainer may run, or have ended unseen."""
        attempts = self.attempts()
        return attempts[-1] if attempts and attempts[-1].ended() is None else None

    def new_attempt(self, how: Mapping[str, Any]) -> Attempt:
        """Make the folder of the next start."""
        attempts = self.attempts()
        number = attempts[-1].number + 1 if attempts else 1
        folder = self.root / "attempts" / f"{number:04d}"
        shutil.rmtree(folder, ignore_errors=True)  # of a run killed while it made this one
        folder.mkdir(parents=True)
        write_atomically(folder / _ATTEMPT, json.dumps(dict(how)).encode())
        return Attempt(folder, number, how)

    @contextmanager
    def hold(self, holder: str, *, waiting: Callable[[str], None]) -> Iterator[None]:
        """Hold this training alone; while another run does, `waiting` is told who, again and again. The kernel lets go of the dead."""
        path = self.root.with_name(f"{self.root.name}.lock")
        path.parent.mkdir(parents=True, exist_ok=True)
        while True:
            with path.open("a+") as file:
                if _lock(file) and _is_still(path, file):
                    file.truncate(0)
                    file.write(holder)
                    file.flush()
                    yield
                    if not self.root.exists():  # stored: nobody needs the lock any more
                        path.unlink()
                    return
                file.seek(0)
                waiting(file.read().strip() or "another run")
            time.sleep(_WAIT_SECONDS)

    def remove(self) -> None:
        """Remove everything: the training is stored."""
        shutil.rmtree(self.root)


def sweep(trainings: Path, *, older_than_seconds: float) -> list[str]:
    """Remove folders of trainings that came to nothing and that nobody has touched for so long; return their names."""
    from resources.detached import find

    gone = []
    for root in sorted(path for path in trainings.glob("*") if path.is_dir()):
        touched = max(path.stat().st_mtime for path in (root, *root.glob("*"), *root.glob("*/*")))
        if time.time() - touched < older_than_seconds or any(find(attempt.folder) for attempt in TrainingFolder(root).attempts()):
            continue
        lock = root.with_name(f"{root.name}.lock")
        with lock.open("a+") as file:
            if _lock(file) and _is_still(lock, file):
                shutil.rmtree(root)
                lock.unlink()
                gone.append(root.name)
    return gone


def _lock(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_still(path: Path, file: IO[str]) -> bool:
    """Whether the locked file is the one that newcomers find: its holder may have removed it meanwhile."""
    try:
        return path.stat().st_ino == os.fstat(file.fileno()).st_ino
    except FileNotFoundError:
        return False
