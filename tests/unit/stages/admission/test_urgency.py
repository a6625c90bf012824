"""A nearer deadline overtakes, and nobody waits for ever: over random arrivals in a simulated queue."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from platform_assets.specs.compute import SlaSpec
from platform_assets.stages.admission.urgency import LONGEST_WAIT, head_start, queue_priority, virtual_deadline

NOW = datetime(2026, 11, 1, tzinfo=UTC).timestamp()
IMPACTS = ("low", "normal", "high", "critical")


@dataclass(frozen=True)
class Arrival:
    at: int
    work: int
    sla: SlaSpec
    model: int

    @property
    def deadline(self) -> float:
        return virtual_deadline(self.at, sla=self.sla)


slas = st.builds(
    SlaSpec, impact=st.sampled_from(IMPACTS), deadline=st.none() | st.integers(60, 200_000).map(lambda s: timedelta(seconds=s))
)
arrivals = st.lists(
    st.builds(Arrival, at=st.integers(0, 400_000).map(lambda s: int(NOW) + s), work=st.integers(1, 20_000), sla=slas, model=st.integers(0, 3)),
    min_size=1, max_size=40,
)  # fmt: skip


def simulate(arrivals: list[Arrival], *, slots: int = 1) -> dict[int, float]:
    """Dagster's queue: whenever a slot is free, the highest priority of those that have arrived starts, the oldest of equals first."""
    waiting = sorted(range(len(arrivals)), key=lambda n: arrivals[n].at)
    free, starts = [0.0] * slots, {}
    while waiting:
        now = max(min(free), min(arrivals[n].at for n in waiting))
        ready = [n for n in waiting if arrivals[n].at <= now]
        first = max(ready, key=lambda n: queue_priority(arrivals[n].at, slas=[arrivals[n].sla]))
        starts[first] = now
        free[free.index(min(free))] = now + arrivals[first].work
        waiting.remove(first)
    return starts


def test_a_nearer_deadline_overtakes():
    long_job = Arrival(int(NOW), 1000, SlaSpec(), 0)
    patient = Arrival(int(NOW) + 10, 100, SlaSpec(impact="normal"), 1)
    hurried = Arrival(int(NOW) + 20, 100, SlaSpec(impact="normal", deadline="30m"), 2)
    starts = simulate([long_job, patient, hurried])
    assert starts[2] < starts[1]


@given(arrivals, st.integers(1, 3))
def test_once_its_virtual_deadline_has_come_no_later_arrival_starts_before_a_run(arrivals, slots):
    starts = simulate(arrivals, slots=slots)
    for n, run in enumerate(arrivals):
        assert not [m for m, other in enumerate(arrivals) if other.at > run.deadline and starts[m] < starts[n]]


@given(arrivals)
def test_every_run_starts_within_its_bound(arrivals):
    """On one slot: once its virtual deadline has come, only what was asked for before that can still be ahead."""
    starts = simulate(arrivals)
    for n, run in enumerate(arrivals):
        bound = run.deadline + sum(other.work for other in arrivals if other.at <= run.deadline)
        assert starts[n] <= bound


@given(arrivals)
def test_the_nearest_of_those_that_wait_is_next(arrivals):
    starts = simulate(arrivals)
    for n, run in enumerate(arrivals):
        overtaken = [m for m, other in enumerate(arrivals) if starts[m] > starts[n] and other.at <= starts[n]]
        assert all(arrivals[m].deadline + 1 > run.deadline for m in overtaken), "whole seconds are compared"


@given(slas, st.floats(0, 1e6))
def test_nobody_waits_longer_than_the_impact_allows_to_be_overtaken(sla, after):
    wait = virtual_deadline(NOW + after, sla=sla) - (NOW + after)
    assert 0 < wait <= LONGEST_WAIT[sla.impact].total_seconds() + 1e-3


def test_a_later_impact_may_wait_longer():
    assert [LONGEST_WAIT[impact] for impact in IMPACTS] == sorted(LONGEST_WAIT.values(), reverse=True)


def test_every_priority_is_above_that_of_a_run_without_one():
    assert queue_priority(NOW, slas=[SlaSpec(impact="low")]) > 0
    assert queue_priority(NOW, slas=[]) == queue_priority(NOW, slas=[SlaSpec()])


def test_a_run_for_several_models_is_as_urgent_as_the_most_urgent_of_them():
    both = [SlaSpec(impact="low"), SlaSpec(impact="critical")]
    assert queue_priority(NOW, slas=both) == queue_priority(NOW, slas=both[1:])


@given(arrivals, st.integers(0, 100_000))
def test_a_queue_by_time_of_asking_with_the_head_start_has_the_same_order(arrivals, after):
    """As in the table of GPU leases, whose clock is another: seconds of head start count back from the moment of asking."""
    asked = [max(run.at for run in arrivals) + after + n for n in range(len(arrivals))]
    priorities = [queue_priority(run.at, slas=[run.sla]) for run in arrivals]
    places = [at - 60 * head_start(priority, at=at) for at, priority in zip(asked, priorities, strict=True)]
    for (place, run), (other_place, other) in itertools.combinations(zip(places, arrivals, strict=True), 2):
        if abs(run.deadline - other.deadline) > 61:  # whole minutes are compared
            assert (place < other_place) == (run.deadline < other.deadline)


def test_a_run_without_a_priority_queues_as_a_normal_one_asked_for_now():
    assert head_start(0, at=NOW) == head_start(queue_priority(NOW, slas=[SlaSpec()]), at=NOW) == -6 * 60
    assert head_start(queue_priority(NOW, slas=[SlaSpec(impact="low")]), at=NOW) == -24 * 60
