"""Requests that arrive in the same turn of the event loop go into one session run.

No timer and no added waiting: measured at 0.4 of the CPU of one run a request. What does not fit into a turn waits for the next,
up to a bound; what would wait past its deadline is refused at once.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Protocol

from platform_assets.errors import ServingError
from platform_assets.stages.serving.bundle import MAX_RUN_ROWS
from platform_assets.stages.serving.columns import Encoded, stack

if TYPE_CHECKING:
    import numpy as np

    from platform_assets.stages.serving.traffic import Arm

MAX_WAITING_ROWS = 20_000
_REMEMBERED = 0.2  # share of the newest run in what a row is expected to take


class BusyError(ServingError):
    """The queue is full, or a request waited or would wait past its deadline (HTTP 503)."""


class Job(Protocol):
    """Rows waiting for an answer."""

    batch: Encoded
    deadline: float

    def fail(self, error: ServingError) -> None:
        """Take a refusal, on the event loop."""


Deliver = Callable[["Arm", list["Job"], Encoded, "np.ndarray"], None]


class Batcher:
    """One queue an arm, emptied at the end of each turn of the loop. Answers go to `deliver`, a whole run at once."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._queues: dict[Arm, deque[Job]] = {}
        self._scheduled = False
        self._row_seconds = 0.0
        self.deliver: Deliver = lambda *_: None
        self.waiting_rows = 0

    def submit(self, job: Job, *, arm: Arm) -> None:
        """Queue a job; BusyError where it does not fit, or would not be answered in time."""
        rows, waiting = job.batch.rows, self.waiting_rows
        if waiting:
            if waiting + rows > MAX_WAITING_ROWS:
                raise BusyError(f"{waiting} rows are waiting, {MAX_WAITING_ROWS} is the bound; try again in a second")
            expected = (waiting + rows) * self._row_seconds
            if expected > 0.001 and monotonic() + expected > job.deadline:  # noqa: PLR2004 - a millisecond is no reason to look at the clock
                raise BusyError(f"{waiting} rows are waiting, about {expected:.2g} s of work: past the deadline; try again in a second")
        self.waiting_rows = waiting + rows
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
                self._run(jobs, arm=arm)
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
                job.fail(BusyError("the request waited past its deadline; try again in a second"))
                continue
            rows += job.batch.rows
            jobs.append(job)
        return jobs

    def _run(self, jobs: list[Job], *, arm: Arm) -> None:
        batch = stack([job.batch for job in jobs])
        began = monotonic()
        try:
            found = arm.bundle.predict(batch)
        except ServingError as error:
            if len(jobs) == 1:
                jobs[0].fail(error)
                return
            for job in jobs:  # one bad request must not fail its neighbours
                self._run([job], arm=arm)
            return
        self._row_seconds += _REMEMBERED * ((monotonic() - began) / batch.rows - self._row_seconds)
        self.deliver(arm, jobs, batch, found)
