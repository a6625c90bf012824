"""Brings up lightning.fabric for one process of a training: alone, or one of those that torchrun started on one node or many."""

from __future__ import annotations

import logging
import warnings
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from lightning.fabric import Fabric
from lightning.fabric.plugins import MixedPrecision, Precision
from lightning.fabric.strategies import DDPStrategy, ModelParallelStrategy, Strategy
from torch import Tensor, nn

from platform_assets.errors import TrainingError
from platform_assets.networks.companions import place_here

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch.distributed.device_mesh import DeviceMesh

    from platform_assets.networks.plans import RunPlan, TrainingPlan

# A rank that is gone is noticed by the others when a collective has waited this long. With torchrun's own steps (it gives a silent node up
# after 15 s and waits for others to join) training goes on within a minute of a cut link.
SILENCE_SECONDS = 20
COMPILE_SECONDS = 900  # ranks may be minutes apart while torch.compile works on the first steps


class LoggedFabric(Fabric):
    """Fabric that keeps what `self.log` of a module says, without asking the device for its value at each step."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._logged: dict[str, tuple[Tensor, int]] = {}

    def log_dict(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Add to the means that `take_logged` returns."""
        del step
        for name, value in metrics.items():
            number = torch.as_tensor(value, dtype=torch.float32).detach()
            total, count = self._logged.get(name, (torch.zeros_like(number), 0))
            self._logged[name] = (total + number, count + 1)

    def take_logged(self) -> dict[str, float]:
        """Mean of each logged figure since the last call."""
        taken, self._logged = self._logged, {}
        return {name: float(total) / count for name, (total, count) in taken.items()}


class _WholeInputs(MixedPrecision):
    """bf16-mixed as autocast alone does it.

    Fabric's own turns every float input to bf16 first: a number such as a day of 19,800 would be off by up to 64.
    """

    def convert_input(self, data: Any) -> Any:
        """Leave inputs as they are."""
        return data


def open_fabric(plan: TrainingPlan, run: RunPlan) -> LoggedFabric:
    """Join the other processes, if any, and return Fabric on this process's device.

    A single process has nothing to share or shard, so it uses neither DDP nor FSDP2. Raises TrainingError for too small a batch.
    """
    for name in ("lightning.fabric", "lightning.pytorch", "lightning.fabric.utilities.rank_zero", "lightning.fabric.utilities.seed"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    place = place_here()
    processes, here = place.size, place.local_size
    if plan.batch_size < processes:
        raise TrainingError(
            f"training.batch_size is {plan.batch_size} and {processes} processes share it; raise it or start fewer processes"
        )
    if processes % here:
        raise TrainingError(f"{processes} processes do not divide into nodes of {here}; start the same number on each node")
    accelerator = "cuda" if torch.cuda.is_available() else "cpu"
    strategy: Strategy | str = "auto" if processes == 1 else _strategy(plan, run)
    precision: Precision = _WholeInputs("bf16-mixed", accelerator) if plan.precision == "bf16-mixed" else Precision()
    fabric = LoggedFabric(accelerator=accelerator, devices=here, num_nodes=processes // here, strategy=strategy, plugins=[precision])
    fabric.launch()
    return fabric


def highest(values: list[float], *, fabric: Fabric) -> list[float]:
    """Return the highest of each value over all ranks; every rank must call it."""
    if fabric.world_size == 1:
        return values
    shared = torch.tensor(values, dtype=torch.float64, device=fabric.device)
    dist.all_reduce(shared, dist.ReduceOp.MAX)
    return [float(value) for value in shared.tolist()]


def total(value: float, *, fabric: Fabric) -> float:
    """Add a value up over all ranks; every rank must call it."""
    if fabric.world_size == 1:
        return value
    shared = torch.tensor(value, dtype=torch.float64, device=fabric.device)
    dist.all_reduce(shared)
    return float(shared)


def _strategy(plan: TrainingPlan, run: RunPlan) -> Strategy:
    silence = timedelta(seconds=COMPILE_SECONDS if run.compile else SILENCE_SECONDS)
    if run.strategy == "fsdp2":
        return ModelParallelStrategy(_shard, data_parallel_size=place_here().size, tensor_parallel_size=1, timeout=silence)
    if run.strategy == "ddp":
        # Buffers are fitted values that never change. A user's module may have batch norms, and parameters that not every loss uses.
        own = plan.module is None
        return DDPStrategy(timeout=silence, broadcast_buffers=not own, find_unused_parameters=not own, gradient_as_bucket_view=True)
    raise TrainingError(f"no strategy {run.strategy!r}; training.strategy is ddp or fsdp2")


def _shard(module: nn.Module, mesh: DeviceMesh) -> nn.Module:
    """Shard every block of every list of blocks by itself, so that only one is whole at a time, and what is left as a whole."""
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    over = mesh["data_parallel"]
    for part in module.modules():
        if isinstance(part, nn.ModuleList):
            for block in part:
                if any(weight.requires_grad for weight in block.parameters()):
                    fully_shard(block, mesh=over)
    fully_shard(module, mesh=over)
    register_fsdp_forward_method(module, "training_step")
    return module
