"""Several processes learn what one learns: DDP, FSDP2, a world that changes its size, torchrun that starts a killed worker again."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.unit.stages.training import starts
from tests.unit.stages.training.starts import PLAIN, RUN, ended, finish, lines, reached, start, wait_for, write_inputs, write_plans

# Masks are drawn by each rank for itself; without any, ranks must compute what one process does but for the order of sums.
CALM = replace(PLAIN, architecture="tabular_transformer", dropout=0.0, epochs=1, batch_size=33)
NOTHING_HIDDEN = {"platform_assets.networks.fitting:HIDDEN": 0.0, "platform_assets.networks.fitting:HIDDEN_LOOK_UP": 0.0}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    return write_inputs(tmp_path_factory.mktemp("inputs"), training=CALM)


@pytest.fixture(scope="module")
def alone(inputs, tmp_path_factory):
    out = tmp_path_factory.mktemp("alone") / "out"
    assert finish(start(inputs, out, values=NOTHING_HIDDEN)) == 0
    return out


def start_together(inputs, out, *, plans=None, world=2, **more):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return [
        start(inputs, out, plans=plans, values=NOTHING_HIDDEN, told=starts.join_world(rank, world, port), **more) for rank in range(world)
    ]


def assert_close(out, other):
    one, two = (torch.load(folder / "checkpoint.pt", weights_only=True) for folder in (out, other))
    assert one.keys() == two.keys()
    for name, weight in one.items():
        if not name.endswith("key_value.bias"):  # a key's has no gradient but rounding, and Adam makes whole steps of that
            torch.testing.assert_close(weight, two[name], atol=2e-5, rtol=1e-4, msg=lambda said, name=name: f"{name}: {said}")
    said = [np.load(folder / "predictions_holdout.npy") for folder in (out, other)]
    np.testing.assert_allclose(said[0], said[1], atol=1e-5)


@pytest.mark.parametrize(("strategy", "micro_batches"), [("ddp", 3), ("fsdp2", 1)])
def test_two_processes_learn_what_one_does(inputs, alone, tmp_path, strategy, micro_batches):
    write_plans(tmp_path, training=CALM, run=replace(RUN, strategy=strategy, micro_batches=micro_batches))
    out = tmp_path / "out"
    assert [finish(child) for child in start_together(inputs, out, plans=tmp_path)] == [0, 0]
    assert_close(out, alone)
    assert len(lines(out, "epoch")) == CALM.epochs
    assert ended(out)["outcome"] == "finished"


def test_stopped_as_two_with_shards_it_goes_on_alone(inputs, alone, tmp_path):
    write_plans(tmp_path, training=CALM, run=replace(RUN, strategy="fsdp2"))
    out = tmp_path / "out"
    children = start_together(inputs, out, plans=tmp_path, before=starts.slow_steps)
    wait_for(lambda: reached(out) >= 10, child=children[0])
    os.kill(children[1].pid, signal.SIGTERM)  # one asks, both stop
    assert [finish(child) for child in children] == [75, 75]
    assert ended(out)["outcome"] == "preempted"
    stopped = ended(out)["step"]
    assert finish(start(inputs, out, plans=tmp_path, values=NOTHING_HIDDEN)) == 0
    assert ended(out)["restored_from"] == stopped
    assert_close(out, alone)


@pytest.mark.slow
def test_torchrun_starts_a_killed_worker_again_and_the_training_goes_on_from_its_checkpoint(inputs, tmp_path):
    write_plans(tmp_path, training=replace(CALM, epochs=40), run=RUN)
    out = tmp_path / "out"
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--max-restarts=1", "--monitor-interval=0.2",
        "-m", "--", "platform_assets.stages.training", f"--data={inputs / 'data'}", f"--spec={tmp_path / 'spec.json'}",
        f"--run={tmp_path / 'run.json'}", f"--out={out}",
    ]  # fmt: skip
    # Sharing torchrun's store, workers of the second round may look for each other at the first one's addresses.
    env = {**os.environ, "OMP_NUM_THREADS": "1", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    with subprocess.Popen(command, env=env, stderr=subprocess.DEVNULL) as torchrun:
        wait_for(lambda: any(line["at"] for line in lines(out, "checkpoint")), seconds=120)
        workers = subprocess.run(["pgrep", "-P", str(torchrun.pid)], capture_output=True, text=True, check=True).stdout.split()
        os.kill(int(workers[-1]), signal.SIGKILL)
        assert torchrun.wait(120) == 0
    (resumed,) = lines(out, "resumed")
    assert resumed["at"] > 0
    assert ended(out)["outcome"] == "finished"
