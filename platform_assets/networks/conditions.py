"""Under what a training computed: what decides, besides plan and rows, the last bits of its weights."""

from __future__ import annotations

import json
import platform
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from platform_assets.networks.checkpoint import write_json
from platform_assets.networks.plans import RunPlan
from platform_assets.specs.record_json import from_mapping

if TYPE_CHECKING:
    from collections.abc import Sequence

CONDITIONS = "conditions.json"


@dataclass(frozen=True)
class Conditions:
    """Equal ones, with the same plan and rows, give weights that are equal bit for bit on a CPU.

    `threads` are a process's; `processes` are those of the whole training. `setbacks` are returns to a checkpoint after a loss that was
    not finite: which checkpoint that is depends on the time. The other fields are RunPlan's.
    """

    processor: str
    instructions: str
    accelerator: str
    torch: str
    threads: int
    processes: int = 1
    strategy: str = "ddp"
    micro_batches: int = 1
    compile: bool = False
    gradient_checkpointing: bool = False
    setbacks: int = 0

    def run_plan(self) -> RunPlan:
        """Return how to run so that these conditions come about again."""
        shared = {field.name for field in fields(self)} & {field.name for field in fields(RunPlan)}
        return RunPlan(**{name: value for name, value in asdict(self).items() if name in shared})


def conditions_here(run: RunPlan, *, processes: int, setbacks: int = 0) -> Conditions:
    """Return this process's conditions, as torch is set now."""
    accelerator = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    return Conditions(
        processor=_processor(), instructions=torch.backends.cpu.get_cpu_capability(), accelerator=accelerator, torch=torch.__version__,
        threads=torch.get_num_threads(), processes=processes, strategy=run.strategy, micro_batches=run.micro_batches,
        compile=run.compile, gradient_checkpointing=run.gradient_checkpointing, setbacks=setbacks,
    )  # fmt: skip


def note_conditions(out: Path, conditions: Conditions) -> None:
    """Add the conditions of this start to conditions.json, unless what stands last there is the same."""
    known = read_conditions(out)
    if not known or known[-1] != conditions:
        write_json(out / CONDITIONS, [asdict(one) for one in (*known, conditions)])


def read_conditions(folder: Path) -> Sequence[Conditions]:
    """Return a training's conditions in order, where they changed; none where it noted none."""
    file = folder / CONDITIONS
    return [from_mapping(Conditions, one) for one in json.loads(file.read_text())] if file.is_file() else []


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor())
