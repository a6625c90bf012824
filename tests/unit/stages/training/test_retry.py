"""What a trainer's end leads to: every outcome has one answer, and no chain of answers goes on for ever."""

from __future__ import annotations

import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from platform_assets.stages.training.exits import Exit
from platform_assets.stages.training.retry import (
    DIVERGED,
    FAILED,
    FINISHED,
    KILLED,
    OUT_OF_MEMORY,
    PREEMPTED,
    Memory,
    Retry,
    Stop,
    Try,
    decide,
    judge,
)

FIRST = Try("small", 1)


def end(outcome: str) -> Exit:
    return Exit(outcome, 1, "Because.", 5, 1.0, None, 0)


def after(outcome: str, *, tried: Try = FIRST, starts: int = 1, larger: str | None = None, batch_size: int = 8, processes: int = 1):
    return decide(end(outcome), tried=tried, starts=starts, most_starts=3, larger=larger, batch_size=batch_size, processes=processes)


def test_a_finished_training_is_done():
    assert after(FINISHED) is None


@pytest.mark.parametrize("outcome", [PREEMPTED, KILLED])
def test_a_preempted_training_goes_on_unchanged(outcome):
    assert after(outcome) == Retry(FIRST, "Because. Start 2 of 3 goes on from its last checkpoint.")


@pytest.mark.parametrize("outcome", [DIVERGED, FAILED, "no such outcome"])
def test_a_training_that_failed_by_itself_is_not_tried_again(outcome):
    stop = after(outcome)
    assert isinstance(stop, Stop)
    assert "Because." in stop.sentence


def test_out_of_memory_takes_the_larger_profile_first():
    again = after(OUT_OF_MEMORY, larger="large")
    assert again.next == Try("large", 1)
    assert "'large'" in again.sentence


def test_out_of_memory_without_a_larger_profile_halves_the_micro_batch():
    assert after(OUT_OF_MEMORY).next == Try("small", 2)
    assert after(OUT_OF_MEMORY, tried=Try("small", 2)).next == Try("small", 4)


def test_a_micro_batch_of_one_row_cannot_be_halved():
    assert after(OUT_OF_MEMORY, tried=Try("small", 4), batch_size=16, processes=2).next == Try("small", 8)
    stop = after(OUT_OF_MEMORY, tried=Try("small", 8), batch_size=16, processes=2)
    assert isinstance(stop, Stop)
    assert "training.compute" in stop.sentence


def test_starts_are_counted():
    stop = after(PREEMPTED, starts=3)
    assert isinstance(stop, Stop)
    assert "training.attempts" in stop.sentence


@given(
    outcomes=st.lists(st.sampled_from([PREEMPTED, KILLED, OUT_OF_MEMORY]), min_size=100, max_size=100),
    most=st.integers(1, 100), chain=st.integers(0, 3), batch_size=st.integers(1, 4096), processes=st.integers(1, 8),
)  # fmt: skip
def test_whatever_happens_there_are_never_more_starts_than_declared_nor_empty_micro_batches(outcomes, most, chain, batch_size, processes):
    tried, starts = Try("0", 1), 1
    for outcome in outcomes:
        larger = str(int(tried.profile) + 1) if int(tried.profile) < chain else None
        answer = decide(
            end(outcome), tried=tried, starts=starts, most_starts=most, larger=larger, batch_size=batch_size, processes=processes
        )
        if isinstance(answer, Stop):
            return
        assert answer.next.micro_batches == 1 or answer.next.micro_batches * processes <= batch_size
        tried, starts = answer.next, starts + 1
        assert starts <= most
    raise AssertionError("it went on for ever")


@pytest.mark.parametrize(
    ("code", "memory", "outcome"),
    [
        (-signal.SIGKILL, Memory(kernel_kills=1), OUT_OF_MEMORY),
        (128 + signal.SIGKILL, Memory(kernel_kills=1), OUT_OF_MEMORY),
        (1, Memory(kernel_kills=1), OUT_OF_MEMORY),  # torchrun, whose worker was killed
        (None, Memory(kernel_kills=1), OUT_OF_MEMORY),  # attached: its status went to another parent
        (-signal.SIGKILL, Memory(share_of_limit=0.95), OUT_OF_MEMORY),
        (-signal.SIGKILL, Memory(share_of_limit=0.5), KILLED),
        (None, Memory(), KILLED),
        (0, Memory(), KILLED),
        (-signal.SIGTERM, Memory(), PREEMPTED),
        (-signal.SIGSEGV, Memory(share_of_limit=0.95), FAILED),
        (1, Memory(), FAILED),
        (75, Memory(), FAILED),
    ],
)
def test_a_trainer_that_left_no_word_is_judged_by_its_status_and_its_memory(code, memory, outcome):
    assert judge(None, code=code, memory=memory).outcome == outcome


def test_a_trainers_own_word_counts():
    assert judge(end(PREEMPTED), code=75, memory=Memory(share_of_limit=0.99)) == end(PREEMPTED)


def test_a_first_process_stopped_because_another_was_killed_for_memory_was_not_preempted():
    ended = judge(end(PREEMPTED), code=1, memory=Memory(kernel_kills=1))
    assert (ended.outcome, ended.step) == (OUT_OF_MEMORY, 5)
