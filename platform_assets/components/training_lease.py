"""GPUs for a training: what it asks of the pool, its wait in turn, the devices that a lease means. The table: resources.leases."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import uuid4

from platform_assets.components.step import Step
from platform_assets.specs.leases import GPU_POOL, Lease, LeaseAsk
from platform_assets.specs.model import ModelSpec
from platform_assets.stages.admission.urgency import head_start
from platform_assets.stages.placement.resolution import Placement

_ASK_SECONDS = 1.0
_SAY_SECONDS = 60.0


@contextmanager
def leased(step: Step, model: ModelSpec, placement: Placement) -> Iterator[tuple[Lease | None, float]]:
    """Hold the GPUs that a training needs, as long as the block lasts; yields the seconds waited for them, too."""
    ask = lease_ask(step, model, placement)
    if ask is None:
        yield None, 0.0
        return
    leases, began, say_at = step.parts.leases, time.monotonic(), 0.0
    try:
        with step.meter.waiting():
            while (lease := leases.take(ask)) is None:
                if time.monotonic() >= say_at:
                    say_at = time.monotonic() + _SAY_SECONDS
                    held = ", ".join(f"{len(other.slots)} by {other.holder}" for other in leases.held(ask.pool)) or "none"
                    turn = ", ".join(leases.waiting(ask.pool))
                    step.say(f"Waiting for {ask.slots} of {ask.capacity} GPUs; held: {held}; in turn: {turn}.")
                step.parts.watcher.note("waiting for GPUs")
                time.sleep(_ASK_SECONDS)
    except BaseException:
        leases.withdraw(ask.ticket, pool=ask.pool)
        raise
    try:
        yield lease, time.monotonic() - began
    finally:
        leases.release(lease.token, pool=ask.pool)


@contextmanager
def kept_alive(step: Step, lease: Lease | None) -> Iterator[None]:
    """Renew a lease from this process while the block lasts, for a program that has no heartbeat of its own and ends with this process."""
    from platform_assets.stages.training.heartbeat import Heartbeat, LeaseFile
    from resources import leases

    if lease is None:
        yield
        return
    file = LeaseFile(step.parts.leases.dsn, lease.token, leases.LEASE_SECONDS)
    heartbeat = Heartbeat(file, on_lost=lambda: step.context.log.warning(heartbeat.sentence))
    heartbeat.start()
    try:
        yield
    finally:
        heartbeat.stop()


def lease_ask(step: Step, model: ModelSpec, placement: Placement) -> LeaseAsk | None:
    """Return what a training asks of the pool of GPUs; None where it runs on the CPU.

    A declared number of GPUs is one pool, wherever they are; GPUs that were counted are this machine's own.
    """
    from resources.machine import look_at_machine

    declared = step.parts.catalogue.compute.gpus
    slots, capacity = (placement.got.gpus, len(look_at_machine().gpus)) if declared is None else (placement.profile.gpus, declared)
    if not slots or not capacity:
        return None
    pool = GPU_POOL if declared is not None else f"{GPU_POOL} of {os.uname().nodename}"
    priority = step.context.run.tags.get("dagster/priority", "0")
    return LeaseAsk(
        ticket=uuid4().hex, pool=pool, slots=slots, capacity=capacity, tenant=model.tenant, profile=placement.name,
        quota=placement.profile.tenant_quota, priority=head_start(int(priority) if priority.isdecimal() else 0, at=time.time()),
        holder=f"model/{model.name}, run {step.context.run.run_id[:8]}",
    )  # fmt: skip


def devices_of(step: Step, lease: Lease | None) -> dict[str, str]:
    """Show the trainer its own GPUs alone, where slots are this machine's devices; a cluster does that itself."""
    from resources.machine import look_at_machine

    shared = step.parts.catalogue.compute.gpus is not None and not step.parts.leases.dsn.startswith("sqlite")
    if lease is None or shared or not look_at_machine().gpus:
        return {}
    # NVML, which counted them, goes by the bus; CUDA alone would put the fastest first.
    return {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": ",".join(map(str, lease.slots))}
