"""How a trainer's end is told: one outcome a cause, the first cause among ranks, nothing after a kill."""

from __future__ import annotations

import errno
import json

import pytest
import torch

from platform_assets.errors import DataError, DivergedError, PreemptedError
from platform_assets.networks.trail import Trail
from platform_assets.stages.training.exits import CODES, Ending, outcome_of, read_exit


def out_of_memory() -> BaseException:
    try:
        torch.empty(1 << 60)
    except RuntimeError as error:
        return error
    raise AssertionError


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (None, "finished"),
        (PreemptedError("stopped by SIGTERM"), "preempted"),
        (DivergedError("no number"), "diverged"),
        (out_of_memory(), "out_of_memory"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), "out_of_memory"),
        (MemoryError(), "out_of_memory"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "out_of_memory"),
        (OSError(errno.ENOSPC, "No space left on device"), "failed"),
        (RuntimeError("shapes do not fit"), "failed"),
        (DataError("no rows"), "failed"),
    ],
)
def test_each_cause_has_its_outcome(error, outcome):
    assert outcome_of(error)[0] == outcome


def test_an_error_of_ours_is_a_sentence_and_an_unforeseen_one_goes_on(tmp_path, capsys):
    with Ending(tmp_path, trail=Trail(), rank=0) as ending:
        raise DivergedError("the loss was not finite")
    assert ending.code == CODES["diverged"] == read_exit(tmp_path).code
    assert capsys.readouterr().err == "the loss was not finite\n"
    with pytest.raises(ZeroDivisionError), Ending(tmp_path, trail=Trail(), rank=0):
        raise ZeroDivisionError("by nought")
    assert read_exit(tmp_path).sentence == "The training failed: ZeroDivisionError: by nought"


def test_the_rank_that_met_the_cause_speaks_and_the_others_do_not(tmp_path):
    trail = Trail()
    first = Ending(tmp_path, trail=trail, rank=0)
    first.__enter__()
    with Ending(tmp_path, trail=trail, rank=1):
        raise MemoryError
    error = RuntimeError("Connection closed by peer")
    assert not first.__exit__(RuntimeError, error, None)
    assert read_exit(tmp_path).outcome == "out_of_memory"


def test_the_record_holds_where_it_came_from_and_what_it_lost(tmp_path):
    earlier, now = Trail(), Trail()
    earlier.follow(tmp_path / "position")
    earlier.mark(90)
    with Ending(tmp_path, trail=now, rank=0):
        now.resume(60, reached=now.follow(tmp_path / "position"))
        now.mark(120)
    said = json.loads((tmp_path / "exit.json").read_text())
    assert (said["step"], said["restored_from"], said["lost_steps"], said["outcome"]) == (120, 60, 30, "finished")


def test_a_new_start_forgets_how_the_one_before_ended(tmp_path):
    with Ending(tmp_path, trail=Trail(), rank=0):
        raise MemoryError
    with Ending(tmp_path, trail=Trail(), rank=0):
        assert read_exit(tmp_path) is None
    assert read_exit(tmp_path).outcome == "finished"
