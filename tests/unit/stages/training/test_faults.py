"""A training loses nothing: killed, stopped, short of memory or disk, off the rails. Real processes, real signals and limits."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from dataclasses import replace
from functools import partial

import pytest
import torch

from platform_assets.networks.plans import RunPlan
from tests.unit.stages.training import starts
from tests.unit.stages.training.starts import PLAIN, RUN, ended, finish, lines, reached, start, wait_for, write_inputs, write_plans


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    return write_inputs(tmp_path_factory.mktemp("inputs"))


@pytest.fixture(scope="module")
def undisturbed(inputs, tmp_path_factory):
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    assert finish(start(inputs, out)) == 0
    return out


def weights(out):
    return torch.load(out / "checkpoint.pt", weights_only=True)


def assert_the_same_training(out, undisturbed):
    before, now = weights(undisturbed), weights(out)
    assert before.keys() == now.keys()
    assert all(torch.equal(before[name], now[name]) for name in before)
    assert (out / "curve.json").read_text() == (undisturbed / "curve.json").read_text()


def states(out):
    return sorted(path.name for path in (out / "state").glob("step-*.json"))


@pytest.mark.slow
def test_ten_kills_in_one_training_leave_no_trace_in_its_weights(inputs, undisturbed, tmp_path):
    out, chance = tmp_path / "out", random.Random(11)
    for kills in range(10):  # the first start begins, each other one goes on
        child = start(inputs, out, before=starts.slow_steps)
        wait_for(lambda kills=kills: len(lines(out, "resumed")) == kills and reached(out) > 0, child=child)
        time.sleep(chance.uniform(0, 0.5))
        assert child.is_alive()
        child.kill()
        child.join()
        assert not (out / "exit.json").exists()
    assert finish(start(inputs, out)) == 0
    assert_the_same_training(out, undisturbed)
    lost = [line["lost_steps"] for line in lines(out, "resumed")]
    assert len(lost) == 10
    # One interval, and the steps that were done while a thread wrote the checkpoint.
    assert max(lost) <= RUN.checkpoint_steps + 10
    assert ended(out)["lost_steps"] == lost[-1]
    assert ended(out)["restored_from"] is not None


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_asked_to_stop_within_an_epoch_it_saves_at_once_and_goes_on_exactly_there(inputs, undisturbed, tmp_path, number):
    out = tmp_path / "out"
    child = start(inputs, out, before=starts.slow_steps)
    wait_for(lambda: reached(out) >= 33, child=child)
    os.kill(child.pid, number)
    asked = time.monotonic()
    assert finish(child) == 75
    assert time.monotonic() - asked < 5
    said = ended(out)
    assert (said["outcome"], said["code"]) == ("preempted", 75)
    assert number.name in said["sentence"]
    assert f"step-{said['step']:09d}.json" in states(out)
    assert finish(start(inputs, out)) == 0
    assert lines(out, "resumed")[-1]["lost_steps"] == 0
    assert ended(out)["outcome"] == "finished"
    assert_the_same_training(out, undisturbed)


def test_asked_to_stop_while_it_judges_an_epoch_it_judges_that_epoch_again(inputs, undisturbed, tmp_path):
    out = tmp_path / "out"
    one_row_at_a_time = {"platform_assets.networks.fitting:CHUNK": 1}
    child = start(inputs, out, values=one_row_at_a_time)
    steps = 900 // PLAIN.batch_size
    wait_for(lambda: reached(out) == steps, child=child)
    os.kill(child.pid, signal.SIGTERM)
    assert finish(child) == 75
    assert ended(out)["step"] == steps
    assert not lines(out, "epoch")
    assert finish(start(inputs, out)) == 0
    assert_the_same_training(out, undisturbed)


def test_asked_to_stop_while_a_checkpoint_is_written_it_ends_in_time_with_both_whole(inputs, undisturbed, tmp_path):
    out = tmp_path / "out"
    child = start(inputs, out, before=_slow_disk_and_steps)
    wait_for(lambda: list((out / "state").glob(".step-000000020*")), child=child)
    os.kill(child.pid, signal.SIGTERM)
    asked = time.monotonic()
    assert finish(child) == 75
    assert time.monotonic() - asked < 20
    assert states(out)[-1] == f"step-{ended(out)['step']:09d}.json"
    assert "step-000000020.json" in states(out)
    assert finish(start(inputs, out)) == 0
    assert_the_same_training(out, undisturbed)


def test_asked_to_stop_while_it_is_stuck_it_ends_all_the_same_and_goes_on_from_its_checkpoint(inputs, undisturbed, tmp_path):
    out = tmp_path / "out"
    child = start(inputs, out, before=starts.stick, values={"platform_assets.networks.stopping:GRACE_SECONDS": 0.5})
    wait_for(lambda: reached(out) == 29 and "step-000000020.json" in states(out), child=child)
    os.kill(child.pid, signal.SIGTERM)
    assert finish(child, seconds=10) == 75
    assert ended(out)["outcome"] == "preempted"
    assert "newest checkpoint" in ended(out)["sentence"]
    assert finish(start(inputs, out)) == 0
    assert ended(out)["lost_steps"] == 9
    assert_the_same_training(out, undisturbed)


def test_memory_that_runs_out_is_an_outcome_of_its_own_and_smaller_parts_fit(inputs, tmp_path):
    out, wide = tmp_path / "out", replace(PLAIN, width=65536, depth=1, batch_size=2048, epochs=1)
    judged_in_small_parts = {"platform_assets.networks.fitting:CHUNK": 64}
    some = partial(starts.little_memory, 700 << 20)  # a thread alone reserves 64 MiB
    write_plans(tmp_path, training=wide, run=RunPlan(trace_steps=0))
    assert finish(start(inputs, out, plans=tmp_path, before=some, values=judged_in_small_parts)) == 70
    said = ended(out)
    assert (said["outcome"], said["code"]) == ("out_of_memory", 70)
    assert "micro_batches" in said["sentence"]
    write_plans(tmp_path, training=wide, run=RunPlan(trace_steps=0, micro_batches=16))
    assert finish(start(inputs, out, plans=tmp_path, before=some, values=judged_in_small_parts)) == 0


def test_a_loss_that_is_no_number_falls_back_once_and_learns_on_at_half_the_rate(inputs, tmp_path):
    out = tmp_path / "out"
    assert finish(start(inputs, out, before=starts.lose_a_number_once)) == 0
    (fallen,) = lines(out, "fell_back")
    assert fallen["rate_factor"] == 0.5
    assert fallen["lost_steps"] <= RUN.checkpoint_steps
    assert [entry["epoch"] for entry in json.loads((out / "curve.json").read_text())] == [*range(1, PLAIN.epochs + 1)]
    assert all(torch.isfinite(weight).all() for weight in weights(out).values())


def test_a_training_off_the_rails_ends_diverged_after_two_halvings(inputs, tmp_path):
    out = tmp_path / "out"
    write_plans(tmp_path, training=replace(PLAIN, learning_rate=1e30), run=RUN)
    assert finish(start(inputs, out, plans=tmp_path)) == 71
    assert ended(out)["outcome"] == "diverged"
    assert "training.learning_rate" in ended(out)["sentence"]
    assert [line["rate_factor"] for line in lines(out, "fell_back")] == [0.5, 0.25]
    assert not (out / "result.json").exists()


def test_a_disk_that_fills_up_costs_the_new_checkpoint_and_not_the_last_nor_the_training(inputs, undisturbed, tmp_path):
    out = tmp_path / "out"
    first = (undisturbed / "checkpoint.pt").stat().st_size * 5  # the state before the first step fits, one with the optimiser's does not
    assert finish(start(inputs, out, before=partial(starts.small_files, first))) == 0
    warnings = [line["why"] for line in lines(out, "warning")]
    assert warnings
    assert all("could not be written" in why and "goes on" in why for why in warnings)
    assert [line["at"] for line in lines(out, "checkpoint")] == [0.0]
    assert_the_same_training(out, undisturbed)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system takes root")
def test_on_a_full_file_system_the_last_whole_checkpoint_is_what_a_kill_goes_back_to(inputs, undisturbed, tmp_path):
    out = tmp_path / "out"
    (out / "state").mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", out / "state"]
    mounted = subprocess.run(mount, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"mounting is not allowed here: {mounted.stderr.strip()}")
    try:
        child = start(inputs, out, before=starts.slow_steps)
        wait_for(lambda: lines(out, "warning"), child=child)
        child.kill()
        child.join()
        assert "No space left" in lines(out, "warning")[0]["why"]
        assert finish(start(inputs, out)) == 0
        assert_the_same_training(out, undisturbed)
    finally:
        subprocess.run(["umount", out / "state"], check=True)


def test_a_finished_folder_is_left_alone(inputs, undisturbed):
    before = {path.name: path.stat().st_mtime_ns for path in undisturbed.iterdir()}
    assert finish(start(inputs, undisturbed)) == 0
    assert {path.name: path.stat().st_mtime_ns for path in undisturbed.iterdir()} == before


def test_the_state_of_another_training_is_refused(inputs, tmp_path):
    out = tmp_path / "out"
    child = start(inputs, out, before=starts.slow_steps)
    wait_for(lambda: lines(out, "checkpoint"), child=child)
    child.kill()
    child.join()
    write_plans(tmp_path, training=replace(PLAIN, learning_rate=0.5), run=RUN)
    assert finish(start(inputs, out, plans=tmp_path)) == 1
    assert "learning_rate was 0.002 and is 0.5" in ended(out)["sentence"]


def test_it_outlives_whoever_started_it(inputs, tmp_path):
    out = tmp_path / "out"
    parent = starts._nursery().Process(target=_start_and_die, args=(inputs, out))
    parent.start()
    parent.join(30)
    wait_for((out / "exit.json").exists, seconds=60)
    assert ended(out)["outcome"] == "finished"


def _slow_disk_and_steps() -> None:
    starts.slow_disk()
    starts.slow_steps()


def _start_and_die(inputs, out) -> None:
    if os.fork():
        os.kill(os.getpid(), signal.SIGKILL)
    starts._run(
        [f"--data={inputs / 'data'}", f"--spec={inputs / 'spec.json'}", f"--run={inputs / 'run.json'}", f"--out={out}"],
        {},
        None,
        {},
        f"{out}.stderr",
    )
