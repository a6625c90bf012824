"""How a trainer is started: what it is told in files, and the command. What becomes of it is in training_run."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from platform_assets.components.step import Step
from platform_assets.logs import JSON
from platform_assets.networks.plans import RunPlan
from platform_assets.specs.compute import parse_memory
from platform_assets.specs.leases import Lease
from platform_assets.specs.model import ModelSpec, TrainingSpec
from platform_assets.stages.placement.resolution import Placement
from platform_assets.stages.training.retry import Try
from platform_assets.stages.training.torchrun import python_arguments
from platform_assets.tracing import traceparent

TRAINER = "platform_assets.stages.training"


@dataclass(frozen=True)
class TrainingJob:
    """What is to be trained, on which profile to begin with; `program` is the module that trains."""

    model: ModelSpec
    data: Path
    profile: str
    warm_start: Path | None = None
    program: str = TRAINER


def run_plan(training: TrainingSpec, *, micro_batches: int) -> RunPlan:
    """Return what a declaration says of how its training runs."""
    saved = training.checkpoints
    return RunPlan(
        strategy=training.strategy, micro_batches=micro_batches, compile=training.compile,
        gradient_checkpointing=training.gradient_checkpointing, checkpoint_seconds=saved.every.total_seconds(),
        checkpoint_steps=saved.steps, keep_checkpoints=saved.keep,
    )  # fmt: skip


def write_command(
    step: Step, job: TrainingJob, *, here: Path, out: Path, placement: Placement, tried: Try, lease: Lease | None
) -> list[str]:
    """Write what the trainer is told into the folder `here`; return the command, under torchrun where there are several processes."""
    from platform_assets.stages.training.heartbeat import LeaseFile
    from resources.home import write_atomically
    from resources.leases import LEASE_SECONDS

    got, storage = placement.got, placement.profile.storage
    learning = placement.learning(job.model.training.learning()).model_dump(mode="json")
    files = {
        # The trainer shares a node's threads out itself.
        "spec": {**learning, "threads": got.threads * got.processes, "kind": job.model.target.kind},
        "run": asdict(run_plan(job.model.training, micro_batches=tried.micro_batches)),
    }
    if lease is not None:
        files["lease"] = asdict(LeaseFile(step.parts.leases.dsn, lease.token, LEASE_SECONDS))
    for name, content in files.items():
        write_atomically(here / f"{name}.json", json.dumps(content).encode(), mode=0o600)  # a table's address may hold a password
    paths = {"--data": job.data, "--out": out, **{f"--{name}": here / f"{name}.json" for name in files}}
    paths["--cache"] = placement.cache_folder(step.parts.settings.home.cache)
    if job.warm_start is not None:
        paths["--warm-start"] = job.warm_start
    program = [sys.executable, *python_arguments(job.program, processes=got.processes)]
    flags = [text for flag, path in paths.items() for text in (flag, str(path))]
    return [*program, *flags, "--cache-bytes", str(parse_memory(storage.cache)), *_told(step, job)]


def _told(step: Step, job: TrainingJob) -> list[str]:
    """How the trainer logs, and where it stands in a trace; nothing where people read and nobody traces."""
    settings, where = step.parts.settings, traceparent()
    words = ["--log", settings.log_form, "--log-as", f"{step.context.run.run_id}/{job.model.name}"] if settings.log_form == JSON else []
    return words + (["--traces", settings.traces.endpoint, "--traceparent", where] if settings.traces.endpoint and where else [])
