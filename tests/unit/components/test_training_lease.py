"""What a training asks of the pool of GPUs, and which devices its lease shows it."""

from __future__ import annotations

import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
from supervised import World

from platform_assets.components.training_lease import devices_of, kept_alive, lease_ask
from platform_assets.specs.compute import SlaSpec
from platform_assets.specs.leases import GPU_POOL, Lease
from platform_assets.stages.admission.urgency import queue_priority
from platform_assets.stages.placement.resolution import Machine, resolve

TWO_GPUS = Machine(cores=(0, 1), memory_bytes=2**34, gpus=("A", "B"))
NO_GPU = replace(TWO_GPUS, gpus=())


@pytest.fixture
def step_on(tmp_path, monkeypatch):
    """A step on a machine, in a catalogue that declares so many GPUs; the profile asks for one or two."""

    def build(
        machine: Machine,
        *,
        declared: int | None,
        profile: str = "gpu",
        priority: str = "0",
        dsn: str | None = None,
        quota: int | None = None,
    ):
        monkeypatch.setattr("resources.machine.look_at_machine", lambda: machine)
        parts = World(tmp_path, gpus=declared).parts()
        compute = parts.catalogue.compute
        profiles = {**compute.profiles, profile: compute.profiles[profile].model_copy(update={"tenant_quota": quota})}
        catalogue = replace(parts.catalogue, compute=compute.model_copy(update={"profiles": profiles}))
        run = SimpleNamespace(tags={"dagster/priority": priority}, run_id="0123456789")
        leases = parts.leases if dsn is None else SimpleNamespace(dsn=dsn)
        step = SimpleNamespace(parts=SimpleNamespace(catalogue=catalogue, leases=leases), context=SimpleNamespace(run=run))
        return step, catalogue.models["tiny_cancellations"], resolve(profiles[profile], name=profile, machine=machine)

    return build


def test_counted_gpus_are_this_machines_own_pool(step_on):
    ask = lease_ask(*step_on(TWO_GPUS, declared=None, profile="gpu-two"))
    assert (ask.slots, ask.capacity, ask.profile, ask.tenant) == (2, 2, "gpu-two", "tests")
    assert ask.pool.startswith(f"{GPU_POOL} of ")


def test_declared_gpus_are_one_pool_wherever_they_are(step_on):
    ask = lease_ask(*step_on(NO_GPU, declared=8, quota=4))
    assert (ask.pool, ask.slots, ask.capacity, ask.quota) == (GPU_POOL, 1, 8, 4)


@pytest.mark.parametrize(
    ("machine", "declared", "profile"), [(NO_GPU, None, "gpu"), (NO_GPU, 0, "gpu"), (TWO_GPUS, None, "cpu"), (TWO_GPUS, 8, "cpu")]
)
def test_who_runs_on_the_cpu_asks_for_nothing(step_on, machine, declared, profile):
    assert lease_ask(*step_on(machine, declared=declared, profile=profile)) is None


@pytest.mark.parametrize(("impact", "minutes"), [("low", -24 * 60), ("critical", -10)])
def test_who_must_start_sooner_asks_with_more_of_a_head_start(step_on, impact, minutes):
    tag = str(queue_priority(time.time(), slas=[SlaSpec(impact=impact)]))
    assert lease_ask(*step_on(TWO_GPUS, declared=None, priority=tag)).priority == pytest.approx(minutes, abs=1)


@pytest.mark.parametrize("tag", ["0", "-3", "soon"])
def test_a_run_that_admission_did_not_place_queues_as_a_normal_one(step_on, tag):
    assert lease_ask(*step_on(TWO_GPUS, declared=None, priority=tag)).priority == -6 * 60


def test_a_lease_shows_its_own_devices_alone(step_on):
    lease = Lease("t", "p", (1,), "t", "gpu", "")
    shown = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": "1"}
    assert devices_of(step_on(TWO_GPUS, declared=None)[0], lease) == shown
    assert devices_of(step_on(TWO_GPUS, declared=2)[0], lease) == shown
    assert devices_of(step_on(TWO_GPUS, declared=None)[0], None) == {}


def test_slots_that_several_machines_share_name_no_device_of_this_one(step_on):
    lease = Lease("t", "p", (5,), "t", "gpu", "")
    assert devices_of(step_on(TWO_GPUS, declared=8, dsn="postgresql://x")[0], lease) == {}
    assert devices_of(step_on(NO_GPU, declared=8)[0], lease) == {}


def test_a_program_without_a_heartbeat_has_its_lease_kept_by_the_process_it_ends_with(step_on, monkeypatch):
    monkeypatch.setattr("resources.leases.LEASE_SECONDS", 0.6)
    step, model, placement = step_on(TWO_GPUS, declared=2)
    table, ask = step.parts.leases, lease_ask(step, model, placement)
    with kept_alive(step, table.take(ask)):
        time.sleep(1.3)
        assert [lease.token for lease in table.held(GPU_POOL)] == [ask.ticket]
    time.sleep(0.7)
    assert table.held(GPU_POOL) == []
    with kept_alive(step, None):
        assert table.held(GPU_POOL) == []
