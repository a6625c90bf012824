"""Requests that arrive in the same turn of the event loop go into one session run.

No timer and no added waiting: measured at 0.4 of the CPU of one run a request. What does not fit into a turn waits for the next,
up to a bound; what would wait past its deadline is refused at once.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from functools import partial
from time import monotonic, thread_time
from typing import TYPE_CHECKING, Protocol

from platform_assets.errors import ServingError
from platform_assets.stages.serving.bundle import MAX_RUN_ROWS
from platform_assets.stages.serving.columns import Encoded, stack

if TYPE_CHECKING:
    import numpy as np

    from platform_assets.stages.serving.memory import Memory
    from platform_assets.stages.serving.replies import Unforeseen
    from platform_assets.stages.serving.traffic import Arm

MAX_WAITING_ROWS = 20_000
_REMEMBERED = 0.2  # share of the newest run in what a row is expected to take


class BusyError(ServingError):
    """The queue is full, or a request waited or would wait past its deadline (HTTP 503)."""


class Job(Protocol):
    """Rows waiting for an answer."""

    batch: Encoded
    deadline: float
    alone: bool  # whether nobody else asks at present

    def fail(self, error: ServingError) -> None:
        """Take a refusal, on the event loop."""

    def give_up(self, error: ServingError) -> None:
        """Take a refusal unless the answer was given."""


Deliver = Callable[["Arm", list["Job"], Encoded, "np.ndarray"], None]


class Batcher:
    """One queue an arm, emptied at the end of each turn of the loop. Answers go to `deliver`, a whole run at once."""

    def __init__(self, loop: asyncio.AbstractEventLoop, *, memory: Memory, unforeseen: Unforeseen) -> None:
        self._loop, self._memory, self._unforeseen = loop, memory, unforeseen
        self._queues: dict[Arm, deque[Job]] = {}
        self._scheduled = False
        self._row_seconds = 0.0
        self._ended = 0.0  # when the last run did
        self.deliver: Deliver = lambda *_: None
        self.waiting_rows = 0

    def submit(self, job: Job, *, arm: Arm) -> None:
        """Queue a job; BusyError where it does not fit, or would not be answered in time."""
        rows, waiting = job.batch.rows, self.waiting_rows
        if not waiting:
            if job.alone and arm.bundle.session is not None:
                self._run([job], arm=arm)  # a turn of the loop costs a look at the kernel, and nobody would join
                return
        else:
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
            if arm.bundle.session is None:
                self._memory.load(arm.bundle, then=partial(self._loaded, arm))
                continue
            jobs = self._take(queue)
            if not queue:
                del self._queues[arm]
            if jobs:
                self._run(jobs, arm=arm)
        if any(arm.bundle.session is not None for arm in self._queues):
            self._schedule()

    def _loaded(self, arm: Arm, fault: ServingError | None) -> None:
        """Go on with what waited for an unloaded model, or refuse it."""
        if fault is None:
            self._schedule()
            return
        for job in self._queues.pop(arm, deque()):
            self.waiting_rows -= job.batch.rows
            job.fail(fault)

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
        batch = stack([job.batch for job in jobs]) if len(jobs) > 1 else jobs[0].batch
        began, worked = monotonic(), thread_time()
        arm.figures.begin(began - self._ended)
        try:
            found = arm.bundle.answer(batch)
        except ServingError as error:
            self._give_up(jobs, error, arm=arm)
            return
        except Exception as error:  # noqa: BLE001 - a fault of ours must not leave callers waiting
            self._give_up(jobs, self._unforeseen.note(error), arm=arm)
            return
        self._row_seconds += _REMEMBERED * ((monotonic() - began) / batch.rows - self._row_seconds)
        try:
            self.deliver(arm, jobs, batch, found)
        except Exception as error:  # noqa: BLE001 - those who were answered already are not told again
            fault = self._unforeseen.note(error)
            for job in jobs:
                job.give_up(fault)
        arm.figures.ran(batch.rows, thread_time() - worked)
        self._ended = monotonic()

    def _give_up(self, jobs: list[Job], error: ServingError, *, arm: Arm) -> None:
        if len(jobs) == 1:
            jobs[0].fail(error)
            return
        for job in jobs:  # one bad request must not fail its neighbours
            self._run([job], arm=arm)
