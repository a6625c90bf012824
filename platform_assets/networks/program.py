"""What the programs built on networks share: reading their files, threads, a life that ends with the parent's where that is wanted."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from platform_assets.errors import FalajError

PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


def die_with_parent() -> None:
    """Ask the kernel for SIGKILL when the parent ends (Linux; elsewhere nothing happens): a killed run leaves no trainer behind."""
    if not sys.platform.startswith("linux"):
        return
    parent = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it ended before the kernel knew
        raise SystemExit(1)


def use_threads(count: int | None) -> int:
    """Set torch's CPU threads; all cores this process may use when left out. Return how many."""
    import torch  # here, so that a program can look after its signals and its lease before

    threads = count or len(os.sched_getaffinity(0))
    torch.set_num_threads(threads)
    return threads


def run_program(work: Callable[[], None]) -> int:
    """Run to an exit status, in a life tied to the parent's: our own errors become one sentence on stderr. The trainer has its own door."""
    die_with_parent()
    try:
        work()
    except FalajError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def read_file(path: Path) -> bytes:
    """Read a file given on the command line; a missing one is one sentence."""
    if not path.is_file():
        raise FalajError(f"asked to read {path}, but there is no such file")
    return path.read_bytes()
