"""One server a folder: two would write the same log and state. The kernel frees the lock of one that was killed."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from platform_assets.errors import ServingError

_LOCK = "lock"


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold a server's folder; ServingError, naming the process, where another one does."""
    with (folder / _LOCK).open("a+") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            stream.seek(0)
            raise ServingError(
                f"{folder} is served already by process {stream.read().strip() or 'unknown'}; stop that one first"
            ) from error
        stream.truncate(0)
        stream.write(str(os.getpid()))
        stream.flush()
        with contextlib.suppress(KeyboardInterrupt):
            yield


@contextmanager
def held_if_free(folder: Path) -> Iterator[bool]:
    """Hold the folder of a server that runs no more, and say so; False, and nothing is held, where it runs or has not begun."""
    if not (folder / _LOCK).exists():
        yield False
        return
    with (folder / _LOCK).open("a+") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True
