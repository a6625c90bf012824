"""What students learn from: the training rows and variations of them, with the teacher's word on each.

A patient and consistent teacher (Beyer et al., "Knowledge distillation: a good teacher is patient and consistent", 2022) says of a warped
picture, or of a row with values of other rows in it, what it sees there. Its answers are computed once and shared by all students.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor, nn

from platform_assets.networks.course import Course
from platform_assets.networks.fitting import Classifier, Lesson, hidden_shares, warp_images
from platform_assets.networks.launch import open_fabric
from platform_assets.networks.loop import Loop
from platform_assets.networks.plans import RunPlan

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from platform_assets.networks.checkpoint import Trained
    from platform_assets.networks.companions import Report
    from platform_assets.networks.fitting import Arrays
    from platform_assets.networks.plans import CompressionPlan
    from platform_assets.networks.rows import Rows

LABEL_SHARE = 0.7  # of the target of a row as it is; of a variation of it, only the teacher knows
SWAPPED = 0.3  # most of a varied row's values that come from other rows, each row drawing its own share
WARP = 0.8
MOST_ROWS, MOST_BYTES = 400_000, 400 << 20
BATCH = 512
HINT_SHARE = 0.3  # weight of a loss on the hidden layer
LEAST_STEPS = 10
PROBE_STEPS = 2  # tell a network that is slow for its time; of a fast one the first steps only warm up


def busy_seconds() -> float:
    """Seconds that this process has computed, on as many threads as it may use: a busy machine makes a search last longer, not worse."""
    return time.process_time() / torch.get_num_threads()


@dataclass(frozen=True)
class Lessons:
    """Inputs, target probabilities [N, C] and, where the teacher has a head, what that reads [N, H]; the first `plain` rows are real."""

    inputs: Arrays
    targets: Tensor
    hints: Tensor
    plain: int

    def __len__(self) -> int:
        """Count rows."""
        return len(self.targets)


@dataclass(frozen=True)
class Teaching:
    """What a method that works on networks is given. `clock` says how many seconds of the search are left."""

    teacher: Trained
    plan: CompressionPlan
    lessons: Lessons
    train_rows: Rows
    calibration: Arrays
    calibration_rows: Rows
    report: Report
    clock: Callable[[], float]


def make_lessons(teacher: Trained, *, train: Arrays, labels: NDArray[np.int64], seconds: float) -> Lessons:
    """Ask the teacher about the training rows, then about variations of them while the time lasts; one round of these at least."""
    generator = torch.Generator().manual_seed(teacher.plan.seed)
    shares = torch.tensor(hidden_shares(teacher.schema))
    start = busy_seconds()
    rounds: list[tuple[Arrays, Tensor, Tensor]] = []
    size = sum(part.numel() * part.element_size() for part in train)
    while True:
        varied = vary(train, shares=shares, generator=generator, text=teacher.preprocessing.tokeniser is not None) if rounds else train
        rounds.append((varied, *ask(teacher.network, varied)))
        took = (busy_seconds() - start) / len(rounds)
        more = len(rounds) + 1
        if len(rounds) > 1 and (busy_seconds() - start + took > seconds or more * len(labels) > MOST_ROWS or more * size > MOST_BYTES):
            break
    said = torch.cat([answer for _, answer, _ in rounds])
    hard = nn.functional.one_hot(torch.from_numpy(labels), said.shape[1]).float()
    said[: len(labels)] = (1 - LABEL_SHARE) * said[: len(labels)] + LABEL_SHARE * hard
    inputs = tuple(torch.cat(parts) for parts in zip(*(varied for varied, _, _ in rounds), strict=True))
    return Lessons(inputs, said, torch.cat([hint for _, _, hint in rounds]), len(labels))


def vary(rows: Arrays, *, shares: Tensor, generator: torch.Generator, text: bool) -> Arrays:
    """Return rows like these: pictures warped, some values of a row from other rows, numbers hidden as often as in training."""
    numeric, ids, image, *rest = rows
    if image.shape[1]:
        image = torch.cat([warp_images(part, WARP) for part in image.split(4096)])
    if not text:  # a text stays with the values that it came with
        numeric, ids = (_swap(part, generator) for part in (numeric, ids))
    numeric = numeric.masked_fill(torch.rand(numeric.shape, generator=generator) < shares, math.nan)
    return (numeric, ids, image, *rest)


def _swap(part: Tensor, generator: torch.Generator) -> Tensor:
    rows, columns = part.shape
    if not columns:
        return part
    others = torch.randint(0, rows, part.shape, generator=generator)
    swapped = torch.rand(part.shape, generator=generator) < SWAPPED * torch.rand(rows, 1, generator=generator)
    return torch.where(swapped, part.gather(0, others), part)


def ask(network: nn.Module, inputs: Arrays) -> tuple[Tensor, Tensor]:
    """Return a network's probabilities, and what its head reads; [N, 0] where it has no layer of that name."""
    seen: list[Tensor] = []
    head = next((part for name, part in network.named_modules() if name.rpartition(".")[2] == "head" and isinstance(part, nn.Linear)), None)
    handle = head.register_forward_pre_hook(lambda _, given: seen.append(given[0].detach())) if head is not None else None
    network.eval()
    with torch.no_grad():
        size = 1024
        said = torch.cat([network(*(part[at : at + size] for part in inputs)).softmax(-1) for at in range(0, len(inputs[0]), size)])
    if handle is not None:
        handle.remove()
    return said, torch.cat(seen) if seen else said.new_empty(len(said), 0)


class Pupil(Classifier):
    """A student: cross entropy against the targets and, where hints are given, the teacher's hidden layer by a reading of its own."""

    def __init__(self, network: nn.Module, *, hints: int, **course: Any) -> None:
        super().__init__(network, **course)
        self._hints = hints
        self._student = cast("Any", network)
        self.reading = nn.Linear(self._student.head.in_features, hints) if hints else None

    def training_step(self, batch: tuple[Tensor, ...], index: int) -> Tensor:
        """Loss of one batch (numeric, ids, image, where there is text its tokens, target and hints side by side)."""
        if self.reading is None:
            return super().training_step(batch, index)
        *inputs, both = batch
        target, hint = both[:, : -self._hints], both[:, -self._hints :]
        hidden = self._student.features(*inputs)
        loss = nn.functional.cross_entropy(self._student.head(hidden), target)
        return loss + HINT_SHARE * nn.functional.mse_loss(self.reading(hidden), hint)

    def configure_optimizers(self) -> Any:
        """The network's own weights as everywhere, and the reading's."""
        found: Any = super().configure_optimizers()
        if self.reading is not None:
            found["optimizer"].add_param_group({"params": list(self.reading.parameters()), "weight_decay": 0.0})
            schedule = found["lr_scheduler"]["scheduler"]
            found["lr_scheduler"]["scheduler"] = torch.optim.lr_scheduler.LambdaLR(found["optimizer"], schedule.lr_lambdas[0])
        return found


class _LessonFeed:
    """One epoch of as many batches as there is time for; rows are dealt anew each time all have been seen."""

    def __init__(self, tensors: tuple[Tensor, ...], *, steps: int, seed: int) -> None:
        self._tensors, self.steps, self._seed = tensors, steps, seed
        self.rows = len(tensors[0])
        self._batch = min(BATCH, self.rows)

    def batches(self, epoch: int, *, start: int = 0) -> Iterator[tuple[Tensor, ...]]:
        """Cut batches by index."""
        rng = np.random.default_rng((self._seed, epoch))
        each = self.rows // self._batch
        for step in range(self.steps):
            if step % each == 0:
                order = torch.from_numpy(rng.permutation(self.rows))
            if step >= start:
                chosen = order[step % each * self._batch : (step % each + 1) * self._batch]
                yield tuple(tensor[chosen] for tensor in self._tensors)


def teach(network: nn.Module, teaching: Teaching, *, seconds: float, rate: float, name: str, hints: bool = False) -> nn.Module:
    """Teach a network for about `seconds`, in place; return it in evaluation mode.

    How long a step takes is found on a copy first. A loss that is not finite raises DivergedError.
    """
    lessons, plan = teaching.lessons, replace(teaching.teacher.plan, epochs=1, batch_size=BATCH, learning_rate=rate, weight_decay=1e-4)
    width = lessons.hints.shape[1] if hints else 0
    targets = torch.cat([lessons.targets, lessons.hints], 1) if width else lessons.targets
    torch.manual_seed(plan.seed)

    def run(pupil: nn.Module, steps: int) -> None:
        module: pl.LightningModule = Pupil(
            pupil, hints=width, plan=plan, steps=steps, lesson=Lesson(targets.shape[1], soft=targets, hide=())
        )  # fmt: skip
        feed = _LessonFeed((*lessons.inputs, targets), steps=steps, seed=plan.seed)
        run_plan = RunPlan()
        course = Course(plan=plan, run=run_plan, fabric=open_fabric(plan, run_plan), report=teaching.report, name=name)
        Loop(module, feed=feed, course=course, judge=lambda _: {}).run()

    start = busy_seconds()
    run(copy.deepcopy(network), PROBE_STEPS)
    each = (busy_seconds() - start) / PROBE_STEPS
    if each * LEAST_STEPS * 4 < seconds:
        middle = busy_seconds()
        run(copy.deepcopy(network), 3 * LEAST_STEPS)
        each = (busy_seconds() - middle) / (3 * LEAST_STEPS)
    run(network, max(LEAST_STEPS, int((seconds - (busy_seconds() - start)) / each)))
    return network.cpu().eval()
