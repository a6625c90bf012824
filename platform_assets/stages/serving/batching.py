"""Requests that arrive in the same turn of the event loop go into one session run.

No timer and no added waiting: measured at 0.4 of the CPU of one run a request. What does not fit into a turn waits for the next,
up to a bound.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING

from platform_assets.errors import ServingError
from platform_assets.stages.serving.bundle import MAX_RUN_ROWS
from platform_assets.stages.serving.columns import Encoded, stack

if TYPE_CHECKING:
    import numpy as np

    from platform_assets.stages.serving.traffic import Arm

MAX_WAITING_ROWS = 20_000


class BusyError(ServingError):
    """The queue is full or a request waited past its deadline (HTTP 503)."""


@dataclass(frozen=True, eq=False)
class Job:
    """Rows waiting for an answer; exactly one of the two callbacks is called, on the event loop."""

    batch: Encoded
    deadline: float
    done: Callable[[np.ndarray], None]
    failed: Callable[[ServingError], None]


class Batcher:
    """One queue an arm, emptied at the end of each turn of the loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._queues: dict[Arm, deque[Job]] = {}
        self._scheduled = False
        self.waiting_rows = 0

    def submit(self, job: Job, *, arm: Arm) -> None:
        """Queue a job; BusyError where it does not fit."""
        if self.waiting_rows + job.batch.rows > MAX_WAITING_ROWS:
            raise BusyError(f"{self.waiting_rows} rows are waiting, {MAX_WAITING_ROWS} is the bound; try again in a second")
        self.waiting_rows += job.batch.rows
        queue = self._queues.get(arm)
        if queue is None:
            queue = self._queues[arm] = deque()
        queue.append(job)
        self._schedule()

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        """Run one batch an arm; the rest waits for the next turn, so that reading and other arms go on."""
        self._scheduled = False
        for arm in list(self._queues):
            queue = self._queues[arm]
            jobs = self._take(queue)
            if not queue:
                del self._queues[arm]
            if jobs:
                _run(jobs, arm=arm)
        if self._queues:
            self._schedule()

    def _take(self, queue: deque[Job]) -> list[Job]:
        jobs: list[Job] = []
        rows = 0
        now = monotonic()
        while queue and (not jobs or rows + queue[0].batch.rows <= MAX_RUN_ROWS):
            job = queue.popleft()
            self.waiting_rows -= job.batch.rows
            if now > job.deadline:
                job.failed(BusyError("the request waited past its deadline; try again in a second"))
                continue
            rows += job.batch.rows
            jobs.append(job)
        return jobs


def _run(jobs: list[Job], *, arm: Arm) -> None:
    try:
        found = arm.bundle.predict(stack([job.batch for job in jobs]))
    except ServingError as error:
        if len(jobs) == 1:
            jobs[0].failed(error)
            return
        for job in jobs:  # one bad request must not fail its neighbours
            _run([job], arm=arm)
        return
    start = 0
    for job in jobs:
        stop = start + job.batch.rows
        job.done(found[start:stop])
        start = stop
