"""What a training notes about where it computed, start by start."""

from __future__ import annotations

from dataclasses import replace

from platform_assets.networks.conditions import conditions_here, note_conditions, read_conditions
from platform_assets.networks.plans import RunPlan


def test_a_start_under_other_conditions_is_added_and_an_equal_one_is_not(tmp_path):
    first = conditions_here(RunPlan(micro_batches=2), processes=1)
    second = replace(first, threads=first.threads + 1)
    for one in (first, first, second, second, first):
        note_conditions(tmp_path, one)
    assert read_conditions(tmp_path) == [first, second, first]


def test_conditions_tell_how_to_run_so_that_they_come_about_again():
    run = RunPlan(strategy="fsdp2", micro_batches=3, gradient_checkpointing=True, checkpoint_seconds=1.0)
    again = conditions_here(run, processes=2).run_plan()
    assert conditions_here(again, processes=2) == conditions_here(run, processes=2)
    assert again.checkpoint_seconds == RunPlan().checkpoint_seconds


def test_a_folder_of_a_training_that_noted_nothing_has_none(tmp_path):
    assert read_conditions(tmp_path) == []
