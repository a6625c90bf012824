"""Two hosts, each a network namespace, joined by a virtual cable: one is killed and comes back, then the cable is cut."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from dataclasses import replace

import pytest

from tests.unit.stages.training.starts import PLAIN, RUN, ended, lines, reached, wait_for, write_inputs, write_plans

ADDRESS = ("10.77.0.1", "10.77.0.2")
SECONDS = 60  # that the training may take to go on with what is left


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


@contextmanager
def two_hosts():
    names = [f"falaj{os.getpid()}{side}" for side in "ab"]
    try:
        for name in names:
            ip("netns", "add", name)
        ip("link", "add", "cable", "netns", names[0], "type", "veth", "peer", "name", "cable", "netns", names[1])
        for name, address in zip(names, ADDRESS, strict=True):
            ip("-n", name, "addr", "add", f"{address}/24", "dev", "cable")
            ip("-n", name, "link", "set", "cable", "up")
            ip("-n", name, "link", "set", "lo", "up")
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


@pytest.fixture
def hosts():
    try:
        made = two_hosts()
        names = made.__enter__()
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"network namespaces cannot be made here: {getattr(error, 'stderr', '') or error}")
    yield names
    made.__exit__(None, None, None)


def start_host(names, side: int, inputs, out):
    command = [
        "ip", "netns", "exec", names[side], sys.executable, "-m", "torch.distributed.run", "--nnodes=1:2", "--nproc-per-node=1",
        "--max-restarts=20", "--monitor-interval=0.5", "--rdzv-backend=c10d", f"--rdzv-endpoint={ADDRESS[0]}:29500", "--rdzv-id=falaj",
        f"--rdzv-conf=is_host={1 - side},last_call_timeout=5,keep_alive_interval=2", f"--local-addr={ADDRESS[side]}", "-m", "--", "platform_assets.stages.training",
        f"--data={inputs / 'data'}", f"--spec={inputs / 'spec.json'}", f"--run={inputs / 'run.json'}", f"--out={out}",
    ]  # fmt: skip
    env = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "cable", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    with out.with_name(f"host{side}.log").open("a") as log:
        return subprocess.Popen(command, env=env, stdout=log, stderr=log, start_new_session=True)


def switch_off(name: str, host) -> None:
    """Kill everything on a host at once, as a power cut does."""
    for pid in subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True, check=False).stdout.split():
        with suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)
    host.wait()


def begun(out) -> list[dict[str, float]]:
    return lines(out, "begun")


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_host_that_dies_and_one_that_is_cut_off_cost_a_minute_each_and_no_work(hosts, tmp_path):
    write_inputs(tmp_path, training=replace(PLAIN, epochs=100_000))
    write_plans(tmp_path, training=replace(PLAIN, epochs=100_000), run=replace(RUN, checkpoint_steps=None, checkpoint_seconds=2.0))
    out = tmp_path / "out"
    running = [start_host(hosts, side, tmp_path, out) for side in (0, 1)]
    took: dict[str, float] = {}

    def goes_on_with(world: int, *, since: int, why: str) -> None:
        began = time.monotonic()
        wait_for(lambda: len(begun(out)) > since and begun(out)[-1]["processes"] == world, seconds=90)
        there = reached(out)
        wait_for(lambda: reached(out) > there, seconds=30)
        took[why] = time.monotonic() - began

    try:
        goes_on_with(2, since=0, why="both come up")
        wait_for(lambda: any(line["at"] for line in lines(out, "checkpoint")))
        known = len(begun(out))
        switch_off(hosts[1], running[1])
        goes_on_with(1, since=known, why="one is switched off")
        known = len(begun(out))
        running[1] = start_host(hosts, 1, tmp_path, out)
        goes_on_with(2, since=known, why="it comes back")
        known, resumed = len(begun(out)), len(lines(out, "resumed"))
        ip("-n", hosts[0], "link", "set", "cable", "down")
        goes_on_with(1, since=known, why="the cable is cut")
        assert len(lines(out, "resumed")) > resumed
        assert max(took["one is switched off"], took["the cable is cut"]) < SECONDS, took
        switch_off(hosts[1], running[1])
        ip("-n", hosts[0], "link", "set", "cable", "up")
        known = len(begun(out))
        running[1] = start_host(hosts, 1, tmp_path, out)
        goes_on_with(2, since=known, why="it is plugged in again")
    finally:
        for name, host in zip(hosts, running, strict=True):
            switch_off(name, host)
    done = [line["at"] for line in lines(out, "resumed")]
    assert done == sorted(done), "each start goes on from where the training was, or further"
    assert not (out / "exit.json").exists() or ended(out)["outcome"] != "diverged"
