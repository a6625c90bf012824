"""One supervised training in a home of its own: as the body of an asset."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import dagster as dg

from platform_assets.components.onlookers import Look
from platform_assets.components.step import Step
from platform_assets.components.training_command import TRAINER, TrainingJob
from platform_assets.components.training_run import Trained, hold_training, train
from platform_assets.specs.catalogue import load_catalogue
from platform_assets.specs.compute import AcceleratorSpec, ComputeProfile, ComputeSpec
from resources.parts import Parts, build_parts
from resources.settings import Home, Settings
from resources.trainings import TrainingFolder

TESTS = Path(__file__).parent
DEFS = TESTS / "pipeline" / "defs"
FAKE = "fake_trainer"
KEY = "tiny-0123456789abcdef"


class World:
    """A home, what the stand-in trainer will do, and the pool of slots it needs."""

    def __init__(self, root: Path, behave: Sequence[dict[str, Any]] | None = None, *, gpus: int | None = 2) -> None:
        self.root = root
        self.home = Home(root / "home")
        self.data = root / "data"
        self.folder = TrainingFolder(self.home.trainings / KEY)
        self.gpus = gpus
        if behave is not None:
            self.data.mkdir(parents=True)
            (self.data / "behave.json").write_text(json.dumps(behave))

    @property
    def program(self) -> str:
        """The stand-in, where it was told what to do; else the real trainer."""
        return FAKE if (self.data / "behave.json").exists() else TRAINER

    @property
    def out(self) -> Path:
        return self.folder.out

    def parts(self) -> Parts:
        settings = Settings(home=self.home, environment="laptop", defs_root=DEFS, webhook_url=None, serve_port=0, web_port=0)
        gpu = ComputeProfile(cpu=1, memory="1Gi", price_aed_per_hour=1, accelerator=AcceleratorSpec(count=1), larger="gpu-two")
        two = gpu.model_copy(update={"accelerator": AcceleratorSpec(count=2), "larger": None})
        cpu = ComputeProfile(cpu=1, memory="1Gi", price_aed_per_hour=1)
        compute = ComputeSpec(default="cpu", gpus=self.gpus, profiles={"gpu": gpu, "gpu-two": two, "cpu": cpu})
        return build_parts(settings, replace(load_catalogue(DEFS), compute=compute))

    def starts(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.out / "starts.jsonl").read_text().splitlines()]

    def reached(self) -> int:
        return int((self.out / "reached").read_text()) if (self.out / "reached").exists() else 0

    def run(
        self, *, profile: str = "gpu", looks: Sequence[Look] = (), said: list[str] | None = None, give_up: Any = None, **training: Any
    ) -> Trained:
        """Train once as the body of an asset; its error is raised, what its run was told goes into `said`."""
        parts, done = self.parts(), []
        model = parts.catalogue.models["tiny_cancellations"]
        model = model.model_copy(update={"training": model.training.model_copy(update=training)})

        @dg.asset(required_resource_keys={"parts"})
        def trained(context):
            with parts.ledger.measure(model=model.name, stage="model/trained", run_id=context.run.run_id) as meter:
                step = Step(context, parts, meter)
                with hold_training(step, KEY) as folder:
                    done.append(
                        train(step, TrainingJob(model, self.data, profile, program=self.program), folder, looks=looks, give_up=give_up)
                    )
            return dg.MaterializeResult(metadata={})

        found = {"PYTHONPATH": f"{TESTS.parent}:{TESTS}"}  # the trainer is a module
        with dg.DagsterInstance.ephemeral() as instance, patch.dict(os.environ, found):
            try:
                dg.materialize([trained], resources={"parts": parts}, instance=instance)
            finally:
                for run in instance.get_runs():
                    said = [] if said is None else said
                    said.extend(record.event_log_entry.user_message for record in instance.get_records_for_run(run.run_id).records)
        return done[0]
