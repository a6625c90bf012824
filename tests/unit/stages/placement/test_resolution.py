"""A profile on a machine: a CPU profile never gets a GPU, a GPU profile gets what is there, and nothing exceeds the machine."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from platform_assets.specs.compute import AcceleratorSpec, ComputeProfile, NetworkSpec, StorageSpec
from platform_assets.specs.model import LearningSpec, TrainingSpec
from platform_assets.stages.placement.resolution import Machine, choose_cores, describe, resolve

LAPTOP = Machine(cores=(0, 1), memory_bytes=2**33)
SERVER = Machine(cores=tuple(range(16)), memory_bytes=2**37, gpus=("NVIDIA H200",) * 2)
CPU = ComputeProfile(cpu=8, memory="16Gi", price_aed_per_hour=1)
GPU = CPU.model_copy(update={"accelerator": AcceleratorSpec(count=4), "precision": "bf16-mixed", "nodes": 2})
profiles = st.builds(
    ComputeProfile,
    cpu=st.floats(0.1, 256),
    memory=st.just("1Gi"),
    price_aed_per_hour=st.just(1.0),
    nodes=st.integers(1, 4),
    processes=st.none() | st.integers(1, 64),
    accelerator=st.none() | st.builds(AcceleratorSpec, count=st.integers(1, 64)),
)
machines = st.builds(
    Machine,
    cores=st.integers(1, 128).map(lambda n: tuple(range(n))),
    memory_bytes=st.just(2**33),
    gpus=st.integers(0, 16).map(lambda n: ("H200",) * n),
)


@settings(deadline=None)  # cores are shared
@given(profile=profiles, machine=machines, threads=st.none() | st.integers(1, 300))
def test_nobody_gets_more_than_was_asked_or_than_is_there(profile: ComputeProfile, machine: Machine, threads: int | None) -> None:
    got = resolve(profile, name="any", machine=machine, threads=threads).got
    asked = profile.accelerator.count if profile.accelerator else 0
    assert got.gpus == min(asked, len(machine.gpus))
    assert got.gpus in (got.processes, 0)
    assert 1 <= got.threads <= got.cores <= len(machine.cores)
    assert got.cores < profile.cpu + 1
    assert 1 <= got.processes <= max(got.cores, got.gpus)
    assert threads is not None or got.threads * got.processes <= max(got.cores, got.processes)


def test_a_cpu_profile_gets_no_gpu_where_there_are_some_and_its_program_sees_none() -> None:
    placement = resolve(CPU, name="cpu-large", machine=SERVER)
    assert (placement.got.gpus, placement.got.device) == (0, "cpu")
    assert placement.environment()["CUDA_VISIBLE_DEVICES"] == ""
    assert placement.environment()["OMP_NUM_THREADS"] == "8"


def test_a_gpu_profile_gets_the_gpus_that_are_there_and_its_program_sees_them() -> None:
    placement = resolve(GPU, name="gpu-large", machine=SERVER)
    assert (placement.got.gpus, placement.got.processes, placement.got.threads) == (2, 2, 4)
    assert "CUDA_VISIBLE_DEVICES" not in placement.environment()
    assert placement.sentence == (
        "asked for gpu-large (8 GPU, 8 cores, 16Gi), got 2 x NVIDIA H200: 2 process(es) of 4 thread(s) on 8 core(s)"
    )


def test_without_a_gpu_it_is_one_process_on_the_cpu_in_the_models_own_arithmetic() -> None:
    placement = resolve(GPU, name="gpu-large", machine=LAPTOP)
    assert (placement.got.device, placement.got.processes, placement.got.threads, placement.got.cores) == ("cpu", 1, 2, 2)
    assert placement.environment()["CUDA_VISIBLE_DEVICES"] == ""
    learning = placement.learning(LearningSpec(architecture="tabular_mlp"))
    assert (learning.precision, learning.threads) == ("32-true", 2)
    assert describe(placement.name, placement.profile)["gpus"] == 8


def test_the_profiles_arithmetic_holds_on_its_hardware_unless_the_model_names_its_own() -> None:
    placement = resolve(GPU, name="gpu-large", machine=SERVER)
    assert placement.learning(LearningSpec(architecture="tabular_mlp")).precision == "bf16-mixed"
    named = TrainingSpec(architecture="tabular_mlp", precision="32-true", attempts=2)
    assert placement.learning(named.learning()).precision == "32-true"
    assert placement.learning(TrainingSpec(architecture="tabular_mlp", attempts=2).learning()).precision == "bf16-mixed"


def test_declared_threads_hold_within_the_machine() -> None:
    assert resolve(CPU, name="p", machine=LAPTOP, threads=1).got.threads == 1
    assert resolve(CPU, name="p", machine=LAPTOP, threads=64).got.threads == 2


def test_processes_of_a_cpu_profile_share_its_cores() -> None:
    two = CPU.model_copy(update={"cpu": 2, "processes": 2})
    got = resolve(two, name="two", machine=LAPTOP).got
    assert (got.processes, got.threads, got.cores) == (2, 1, 2)


def test_interfaces_and_storage_reach_the_program() -> None:
    profile = CPU.model_copy(update={"network": NetworkSpec(gloo="eth1"), "storage": StorageSpec(tier="memory")})
    placement = resolve(profile, name="p", machine=LAPTOP)
    assert placement.environment()["GLOO_SOCKET_IFNAME"] == "eth1"
    assert "NCCL_SOCKET_IFNAME" not in placement.environment()
    assert placement.cache_folder(Path("/home/x/.falaj/cache")) == Path("/dev/shm/falaj-home-x-.falaj-cache")
    assert resolve(CPU, name="p", machine=LAPTOP).cache_folder(Path("/c")) == Path("/c")


@settings(deadline=None)  # cores are shared
@given(busy=st.lists(st.floats(0, 100), min_size=1, max_size=64), data=st.data())
def test_the_least_busy_cores_are_chosen(busy: list[float], data: st.DataObject) -> None:
    count = data.draw(st.integers(1, len(busy)))
    chosen = choose_cores(range(len(busy)), busy=busy, count=count)
    rest = [busy[core] for core in range(len(busy)) if core not in chosen]
    assert len(chosen) == len(set(chosen)) == count
    assert not rest or max(busy[core] for core in chosen) <= min(rest)
