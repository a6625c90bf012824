"""Work killed at each of its calls to the file system in turn, so that what a kill leaves is looked at after every one of them."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable

_CALLS = frozenset({"open", "os.rename", "os.remove", "os.link", "os.mkdir", "fcntl.flock", "shutil.rmtree", "sqlite3.connect"})


def killed_at(moment: int, work: Callable[[], object]) -> bool:
    """Do the work in a forked child that is killed just before its call of this number; False where it came to its end before."""

    def watched() -> None:
        calls = iter(range(1, sys.maxsize))

        def hook(event: str, _: object) -> None:
            if event in _CALLS and next(calls) == moment:
                os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)
        work()

    return was_killed(watched)


def was_killed(work: Callable[[], object]) -> bool:
    """Do the work in a forked child; whether that was killed. Where it failed otherwise, this fails, too."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            work()
            status = 0
        except Exception:
            traceback.print_exc()
            raise
        finally:
            os._exit(status)
    status = os.waitpid(pid, 0)[1]
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, "the work failed; what it said is on standard error"
    return os.WIFSIGNALED(status)
