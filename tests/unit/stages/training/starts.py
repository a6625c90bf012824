"""Starts the trainer as a real process, forked from a server that has imported torch: a tenth of a second instead of five."""

from __future__ import annotations

import importlib
import json
import os
import resource
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Any

from forking import fork_after

from platform_assets.networks.plans import RunPlan, TrainingPlan
from platform_assets.stages.telemetry.progress import progress_lines
from tests.unit.networks.tiny import TABULAR, Silent, plan, tabular, write_set

PLAIN = replace(plan("tabular_mlp", epochs=12), batch_size=32)
RUN = RunPlan(checkpoint_steps=20, trace_steps=0)


@cache
def _nursery():
    return fork_after("platform_assets.stages.training.work", "tests.unit.stages.training.starts")


def write_inputs(folder: Path, *, rows: int = 1500, training: TrainingPlan = PLAIN, run: RunPlan = RUN) -> Path:
    """Write data, spec.json and run.json."""
    write_set(folder / "data", tabular(rows), TABULAR, shard_rows=400)
    write_plans(folder, training=training, run=run)
    return folder


def write_plans(folder: Path, *, training: TrainingPlan = PLAIN, run: RunPlan = RUN) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "spec.json").write_text(json.dumps(asdict(training)))
    (folder / "run.json").write_text(json.dumps(asdict(run)))


def train_here(data: Path, *, plan: TrainingPlan, out: Path, warm: Path | None = None, report: Any = None, run: RunPlan | None = None):
    """Train in this process, with nobody watching."""
    from platform_assets.stages.training.work import Journey, train

    journey = Journey(data=data, out=out, warm=warm, cache=out / "cache", cache_bytes=1 << 30, report=report or Silent())
    return train(plan, run=run or RunPlan(trace_steps=0), journey=journey)


def start(
    data: Path, out: Path, *, plans: Path | None = None, values: Mapping[str, Any] | None = None, before: Callable[[], object] | None = None,
    told: Mapping[str, str] | None = None,
):  # fmt: skip
    """Start one trainer; `values` ("module:attribute" to value) are set in it, and `before` is called in it, first."""
    plans = plans or data
    given = [f"--data={data / 'data'}", f"--spec={plans / 'spec.json'}", f"--run={plans / 'run.json'}", f"--out={out}"]
    child = _nursery().Process(target=_run, args=(given, dict(values or {}), before, dict(told or {}), str(out) + ".stderr"))
    child.start()
    return child


def finish(child, *, seconds: float = 60) -> int:
    child.join(seconds)
    if child.exitcode is None:
        child.kill()
        raise AssertionError(f"the trainer did not end within {seconds} s")
    return child.exitcode


def wait_for(what: Callable[[], object], *, child=None, seconds: float = 30) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := what():
            return found
        if child is not None and not child.is_alive():
            break
        time.sleep(0.005)
    raise AssertionError("it did not come about")


def reached(out: Path) -> int:
    path = out / "state" / "position"
    return int.from_bytes(path.read_bytes(), "little") if path.exists() else -1


def lines(out: Path, name: str = "") -> list[dict[str, Any]]:
    return [line for line in progress_lines(out) if name in line["step"]]


def ended(out: Path) -> dict[str, Any]:
    return json.loads((out / "exit.json").read_text())


def join_world(rank: int, world: int, port: int) -> dict[str, str]:
    """Say what torchrun would say to one of `world` processes on this machine."""
    return {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_WORLD_SIZE": str(world), "GROUP_RANK": "0",
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_RUN_ID": "test",
    }  # fmt: skip


def _run(given: list[str], values: dict[str, Any], before: Callable[[], object] | None, told: dict[str, str], stderr: str) -> None:
    import torch

    from platform_assets.stages.training.__main__ import main

    os.dup2(os.open(stderr, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644), 2)
    os.environ.update(told)
    torch.set_num_threads(1)
    for place, value in values.items():
        module, _, name = place.partition(":")
        setattr(importlib.import_module(module), name, value)
    if before is not None:
        before()
    sys.exit(main(given))


# --- faults, called in the trainer before it begins


def slow_steps() -> None:
    """Take ten milliseconds more for each step."""
    _around_the_step(lambda number, loss: time.sleep(0.01))


def slow_draws() -> None:
    """Take ten milliseconds more for each private batch."""
    from platform_assets.networks.private.sampling import PoissonFeed

    really = PoissonFeed._draw

    def draw(self):
        time.sleep(0.01)
        return really(self)

    PoissonFeed._draw = draw


def stick() -> None:
    """Never come back from step 30."""
    _around_the_step(lambda number, loss: time.sleep(600) if number == 30 else None)


def lose_a_number_once() -> None:
    """Give one loss that is no number, at step 100 of this start."""
    _around_the_step(lambda number, loss: loss * float("nan") if number == 100 else None)


def slow_disk() -> None:
    """Take 0.2 s for each file that is brought to the disk."""
    really = os.fsync

    def fsync(handle: int) -> None:
        time.sleep(0.2)
        really(handle)

    os.fsync = fsync


def small_files(most: int) -> None:
    """Let no file grow beyond `most` bytes: the error is a full disk's, but for its number."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))


def little_memory(more: int) -> None:
    """Leave room for `more` bytes beyond what is mapped now."""
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + more, held + more))


def _around_the_step(then: Callable[[int, Any], Any]) -> None:
    from platform_assets.networks.fitting import Classifier

    really, count = Classifier.training_step, [0]

    def training_step(self, batch, index):
        count[0] += 1
        loss = really(self, batch, index)
        instead = then(count[0], loss)
        return loss if instead is None else instead

    Classifier.training_step = training_step
