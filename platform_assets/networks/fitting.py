"""What a network learns from a batch: the loss, the optimiser, what is hidden and warped; and how its answers are judged.

The calibration rows only watch. Choosing the best epoch by them lost 0.025 AUROC on the hotels' second year: 1,800 rows of three weeks
say less about the weeks that follow than the end of the schedule does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import lightning.pytorch as pl
import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from platform_assets.errors import PreemptedError
from platform_assets.measures import measure
from platform_assets.networks.course import Course
from platform_assets.networks.feed.tensors import TensorFeed
from platform_assets.networks.launch import highest, open_fabric
from platform_assets.networks.loop import Loop
from platform_assets.networks.plans import RunPlan
from platform_assets.networks.preprocessing import category_ids
from platform_assets.networks.tokens import encode_texts

if TYPE_CHECKING:
    from lightning.fabric import Fabric
    from lightning.pytorch.utilities.types import LRSchedulerConfigType, OptimizerLRSchedulerConfig
    from numpy.typing import NDArray

    from platform_assets.networks.companions import Report
    from platform_assets.networks.feed.encoded import EncodedSplit
    from platform_assets.networks.plans import TrainingPlan
    from platform_assets.networks.preprocessing import Preprocessing
    from platform_assets.networks.rows import Rows
    from platform_assets.networks.stopping import Stop
    from platform_assets.specs.records import FeatureSchema

Arrays = tuple[Tensor, ...]
WARM_UP = 0.1  # share of the steps in which the learning rate rises
CHUNK, CHUNK_TOKENS = 4096, 262_144  # rows answered at once, and tokens of texts
PLAIN = 3  # inputs of every network: numeric, ids, image
# Share of training rows in which a number is hidden, as if missing. Aggregates that are looked up (another entity's) move with the season
# and may be missing when asked for: a network that leans on them loses 0.01 AUROC in the weeks that follow.
HIDDEN, HIDDEN_LOOK_UP = 0.1, 0.8


@dataclass(frozen=True)
class Fit:
    """A fitted network, in evaluation mode, and its curve: one entry an epoch."""

    network: nn.Module
    curve: tuple[dict[str, float], ...]


@dataclass(frozen=True)
class Lesson:
    """What a fit is told besides labels.

    How many classes there are, target probabilities [N, C] of the training rows (a teacher's word), how much images are warped, and in
    what share of the rows each number is hidden.
    """

    classes: int
    soft: Tensor | None = None
    warp: float = 0.0
    hide: tuple[float, ...] = ()


def hidden_shares(schema: FeatureSchema) -> tuple[float, ...]:
    """Say for each number in what share of the training rows it is hidden."""
    return tuple(HIDDEN if feature.entity == schema.key else HIDDEN_LOOK_UP for feature in schema.of_kind("numeric", "date"))


def to_tensors(rows: Rows, *, preprocessing: Preprocessing) -> Arrays:
    """Turn rows into a network's inputs: numeric, ids, image and, where there is text, its tokens."""
    ids = category_ids(rows.categorical, preprocessing=preprocessing) if rows.categorical else np.empty((len(rows), 0), np.int64)
    plain = torch.from_numpy(rows.numeric), torch.from_numpy(ids), torch.from_numpy(rows.image)
    text = preprocessing.tokeniser
    return plain if text is None else (*plain, torch.from_numpy(encode_texts(rows.text, tokeniser=text)))


def predict(network: nn.Module, inputs: Arrays) -> NDArray[np.float32]:
    """Probabilities [N, C] of a network in evaluation mode, in chunks."""
    network.eval()
    device = next(network.parameters()).device
    size = _chunk(tokens=inputs[3].shape[1] if len(inputs) > PLAIN else 0)
    chunks = (tuple(part[start : start + size].to(device) for part in inputs) for start in range(0, len(inputs[0]), size))
    with torch.no_grad():
        return torch.cat([network(*chunk).softmax(-1).float().cpu() for chunk in chunks]).numpy()


def predict_together(network: nn.Module, split: EncodedSplit, *, fabric: Fabric, stop: Stop) -> NDArray[np.float32]:
    """Probabilities [N, C] as `predict` gives them, each rank answering for its part of every chunk; all ranks get them all.

    Raises PreemptedError on all ranks once one of them is asked to stop.
    """
    network.eval()
    rows, world = split.rows, fabric.world_size
    said = []
    chunk = _chunk(tokens=split.layout.fields[3].width if len(split.layout.fields) > PLAIN + 1 else 0)
    for start in range(0, rows, chunk * world):
        if highest([float(stop.reason is not None)], fabric=fabric)[0]:
            raise PreemptedError(stop.reason or "stopped by another process of this training")
        end = min(rows, start + chunk * world)
        size = -(-(end - start) // world)  # a sharded network wants the same number of calls on every rank, so the last one repeats rows
        first = start + fabric.global_rank * size
        *inputs, _ = split.take(np.arange(first, first + size).clip(max=end - 1))
        with torch.no_grad():
            part = network(*(column.to(fabric.device) for column in inputs)).softmax(-1).float()
        said.append(_gather(part, fabric)[: end - start].cpu())
    return torch.cat(said).numpy()


def _chunk(*, tokens: int) -> int:
    return max(1, min(CHUNK, CHUNK_TOKENS // max(1, tokens)))


def _gather(part: Tensor, fabric: Fabric) -> Tensor:
    if fabric.world_size == 1:
        return part
    parts = [torch.empty_like(part) for _ in range(fabric.world_size)]
    dist.all_gather(parts, part.contiguous())
    return torch.cat(parts)


class Classifier(pl.LightningModule):
    """Cross entropy against labels or a teacher's probabilities; AdamW, one cycle, a moving average of the weights."""

    averages = True

    def __init__(self, network: nn.Module, *, plan: TrainingPlan, steps: int, lesson: Lesson) -> None:
        super().__init__()
        self.network = network
        self._plan, self._steps, self._lesson = plan, steps, lesson

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return the network's logits [N, classes]."""
        logits: Tensor = self.network(*inputs)
        return logits

    def training_step(self, batch: tuple[Tensor, ...], _: int) -> Tensor:
        """Loss of one batch (numeric, ids, image, where there is text its tokens, target)."""
        *inputs, target = batch
        return nn.functional.cross_entropy(self.network(*self.vary(inputs)), target)

    def vary(self, inputs: list[Tensor]) -> list[Tensor]:
        """Hide numbers and warp images, each row by itself."""
        numeric, ids, image, *rest = inputs
        if self._lesson.hide:
            hidden = torch.rand_like(numeric) < numeric.new_tensor(self._lesson.hide)
            numeric = numeric.masked_fill(hidden, math.nan)
        if self._lesson.warp:
            image = warp_images(image, self._lesson.warp)
        return [numeric, ids, image, *rest]

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """AdamW with a warm-up and a cosine back to nothing; biases, norms and looked-up rows do not decay."""
        decayed = [p for p in self.network.parameters() if p.ndim > 1]
        rest = [p for p in self.network.parameters() if p.ndim <= 1]
        groups = [{"params": decayed, "weight_decay": self._plan.weight_decay}, {"params": rest, "weight_decay": 0.0}]
        optimiser = torch.optim.AdamW(groups, lr=self._plan.learning_rate, fused=True)
        rise = max(1, int(self._steps * WARM_UP))

        def rate(step: int) -> float:
            return (step + 1) / rise if step < rise else 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, self._steps - rise)))

        schedule: LRSchedulerConfigType = {"scheduler": torch.optim.lr_scheduler.LambdaLR(optimiser, rate), "interval": "step"}
        return {"optimizer": optimiser, "lr_scheduler": schedule}


def fit(network: nn.Module, *, train: Arrays, labels: NDArray[np.int64], calibration: Arrays, calibration_labels: NDArray[np.int64],
        plan: TrainingPlan, lesson: Lesson, report: Report, name: str) -> Fit:  # fmt: skip
    """Fit in place, in memory, and return the network with the average of its last weights: how students learn.

    The same seed, rows and thread count give equal weights on a CPU. A loss that is not finite raises TrainingError.
    """
    targets = nn.functional.one_hot(torch.from_numpy(labels), lesson.classes).float() if lesson.soft is None else lesson.soft
    feed = TensorFeed((*train, targets), batch=plan.batch_size, seed=plan.seed)
    module = Classifier(network, plan=plan, steps=feed.steps * plan.epochs, lesson=lesson)
    run = RunPlan()
    course = Course(plan=plan, run=run, fabric=open_fabric(plan, run), report=report, name=name)

    def judge(fitted: nn.Module) -> dict[str, float]:
        figures = measure(calibration_labels, probabilities=predict(fitted, calibration), kind=plan.kind)
        return {f"calibration_{figure}": value for figure, value in figures.items()}

    loop = Loop(module, feed=feed, course=course, judge=judge)
    loop.run()
    return Fit(network.cpu().eval(), tuple(loop.curve))


def warp_images(images: Tensor, strength: float) -> Tensor:
    """Turn, stretch and move each square image [N, side*side] a little; at strength 1 by about 9 degrees, 15 % and a sixteenth of the side.

    Whole-pixel shifts cost six points of accuracy on the 8 by 8 digits: they cut strokes off at the border.
    """
    side = math.isqrt(images.shape[1])
    turn = 2 * torch.rand(len(images), 2, 3, device=images.device) - 1
    matrix = torch.eye(2, 3, device=images.device) + strength * 0.15 * turn
    grid = nn.functional.affine_grid(matrix, [len(images), 1, side, side], align_corners=False)
    return nn.functional.grid_sample(images.unflatten(1, (1, side, side)), grid, align_corners=False).flatten(1)
