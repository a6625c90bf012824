"""Prediction logs of the replicas behind a load balancer, brought into the home's own: each has a folder of its own under the home.

A closed segment never changes, and moving it is a rename: a kill leaves it in one place or the other. The lock that a server holds on its
folder tells whether it runs: of one that does not the open segments are closed, and an hour later its counts are taken over and its folder
goes.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import time
from typing import TYPE_CHECKING

from platform_assets.specs.log_counts import LogCounts
from platform_assets.stages.serving.held import held_if_free
from platform_assets.stages.serving.log_counts import read_counts, workers_of
from platform_assets.stages.serving.prediction_log import close_left_overs, closed_segments

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_GONE_SECONDS = 3600.0  # a container that ended is started again in its pod's folder, within minutes
_FIRST = 1_000  # below it are the places of a server's own workers


def gather(replicas: Path, log: Path) -> int:
    """Bring into `log` what replicas have closed, of all models; return how many segments. Two may do so at once."""
    moved = 0
    for replica in _folders(replicas):
        with held_if_free(replica) as stopped:
            gone = stopped and time.time() - _touched(replica) > _GONE_SECONDS
            if stopped:
                close_left_overs(replica / "log")
            for model in _folders(replica / "log"):
                moved += _move_segments(model, log / model.name, replica.name)
                if gone:
                    _move_counts(model, log / model.name, replica.name)
            if gone:
                shutil.rmtree(replica, ignore_errors=True)
    return moved


def _touched(replica: Path) -> float:
    """When its server last began, took a release or closed a segment; counts are touched by whoever reads them."""
    return max(path.stat().st_mtime for path in (replica, *replica.iterdir(), *replica.glob("log/*")))


def count(replicas: Path, model: str) -> LogCounts:
    """Return the sum of what the replicas counted that are still there."""
    return sum((read_counts(replica / "log" / model) for replica in _folders(replicas)), LogCounts())


def _folders(parent: Path) -> Iterator[Path]:
    if parent.is_dir():
        yield from sorted(path for path in parent.iterdir() if path.is_dir())


def _move_segments(source: Path, target: Path, replica: str) -> int:
    moved = 0
    for segment in closed_segments(source):
        number, worker = segment.name.removesuffix(".frames").split("-")
        target.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):  # another one has just taken it
            segment.rename(target / f"{number}-{_writer(replica, worker)}.frames")
            moved += 1
    return moved


def _move_counts(source: Path, target: Path, replica: str) -> None:
    for worker in workers_of(source):
        target.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            (source / f"worker-{worker}.counts").rename(target / f"worker-{_writer(replica, str(worker))}.counts")


def _writer(replica: str, worker: str) -> int:
    """Return the number of a writer among the home's own; the same at each call, another one for each."""
    return _FIRST + int(hashlib.sha256(f"{replica}/{worker}".encode()).hexdigest()[:12], 16)
