"""The machine at hand, looked at without torch; a started program really stays on its cores."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from platform_assets.specs.compute import AcceleratorSpec, ComputeProfile
from platform_assets.stages.placement.resolution import resolve
from resources import machine

PRINT_CORES = "import os, sys; sys.stdin.readline(); print(len(os.sched_getaffinity(0)), flush=True)"


def test_a_program_is_kept_on_as_many_cores_as_its_profile_has() -> None:
    there = sorted(os.sched_getaffinity(0))
    if len(there) < 2:
        pytest.skip("one core: there is nothing to choose")
    placement = resolve(ComputeProfile(cpu=1, memory="1Gi", price_aed_per_hour=0), name="one", machine=machine.look_at_machine())
    with subprocess.Popen([sys.executable, "-c", PRINT_CORES], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as program:
        chosen = machine.pin(program.pid, placement)
        out, _ = program.communicate("\n", timeout=30)
    assert len(chosen) == 1
    assert int(out) == 1
    assert sorted(os.sched_getaffinity(0)) == there, "who started it keeps its own"


def test_programs_started_meanwhile_are_kept_on_their_cores() -> None:
    there = sorted(os.sched_getaffinity(0))
    placement = resolve(ComputeProfile(cpu=1, memory="1Gi", price_aed_per_hour=0), name="one", machine=machine.look_at_machine())
    with machine.pinned(placement):
        inside = subprocess.run([sys.executable, "-c", PRINT_CORES], input="\n", capture_output=True, text=True, check=True).stdout
    assert int(inside) == 1
    assert sorted(os.sched_getaffinity(0)) == there


def test_a_profile_with_as_many_cores_as_there_are_is_not_pinned() -> None:
    placement = resolve(ComputeProfile(cpu=4096, memory="1Gi", price_aed_per_hour=0), name="all", machine=machine.look_at_machine())
    assert machine.pin(os.getpid(), placement) == tuple(sorted(os.sched_getaffinity(0)))


def test_the_machine_is_looked_at_without_torch() -> None:
    code = "import sys; from resources.machine import look_at_machine; m = look_at_machine(); print(len(m.cores), 'torch' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert out == [str(len(os.sched_getaffinity(0))), "False"]


def test_gpus_are_those_that_the_driver_lists(tmp_path: Path) -> None:
    for bus in ("0000:18:00.0", "0000:2a:00.0"):
        (tmp_path / bus).mkdir()
        (tmp_path / bus / "information").write_text("Model: \t\t NVIDIA H200\nIRQ: 14\n")
    assert machine._driver_gpus(tmp_path) == ("NVIDIA H200", "NVIDIA H200")
    assert machine._driver_gpus(tmp_path / "nowhere") == ()


def test_a_gpu_profile_gets_on_this_machine_what_its_driver_answers_for() -> None:
    here = machine.look_at_machine()
    gpu = ComputeProfile(cpu=1, memory="1Gi", price_aed_per_hour=0, accelerator=AcceleratorSpec(count=1))
    got = resolve(gpu, name="gpu", machine=here).got
    assert got.on_gpu == bool(here.gpus) == Path("/dev/nvidiactl").exists()
