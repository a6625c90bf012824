"""Who is alone is answered at once; others share a run at the end of the turn."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from platform_assets.stages.serving.batching import Batcher, BusyError
from platform_assets.stages.serving.columns import Encoded
from platform_assets.stages.serving.figures import Figures


class Loop:
    """Keeps what is to happen at the end of the turn."""

    def __init__(self) -> None:
        self.later = []

    def call_soon(self, call):
        self.later.append(call)

    def end_turn(self):
        later, self.later = self.later, []
        for call in later:
            call()


class Job:
    def __init__(self, *, alone=False, deadline=float("inf")) -> None:
        self.batch, self.alone, self.deadline, self.refused = Encoded(1, np.zeros((1, 1), np.float32)), alone, deadline, ""

    def fail(self, error):
        self.refused = str(error)


class Arm:
    """A version that answers anything."""

    bundle = SimpleNamespace(session=object(), answer=lambda batch: np.zeros((batch.rows, 2)))
    figures = Figures("v")


@pytest.fixture
def made():
    loop, runs = Loop(), []
    batcher = Batcher(loop, memory=None, unforeseen=None)
    batcher.deliver = lambda _arm, jobs, _batch, _found: runs.append(jobs)
    return batcher, Arm(), loop, runs


def test_one_alone_is_answered_within_its_own_call(made):
    batcher, arm, loop, runs = made
    job = Job(alone=True)
    batcher.submit(job, arm=arm)
    assert runs == [[job]]
    assert not loop.later
    assert batcher.waiting_rows == 0


def test_what_comes_in_one_turn_shares_a_run_and_nobody_overtakes(made):
    batcher, arm, loop, runs = made
    jobs = [Job(), Job(alone=True), Job()]
    for job in jobs:
        batcher.submit(job, arm=arm)
    assert runs == []
    loop.end_turn()
    assert runs == [jobs]


def test_what_would_not_be_answered_in_time_is_refused_before_it_waits(made):
    batcher, arm, loop, runs = made
    batcher._row_seconds = 1.0  # as measured on runs so far
    batcher.submit(Job(), arm=arm)
    with pytest.raises(BusyError, match=r"1 rows are waiting, about 2 s of work: past the deadline"):
        batcher.submit(Job(deadline=0.0), arm=arm)
    assert batcher.waiting_rows == 1
    loop.end_turn()
    assert len(runs) == 1
