"""The private step of the training loop: rows' gradients clipped one by one, noise on their sum; a step is counted before it is taken."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from platform_assets.errors import TrainingError
from platform_assets.networks.private.budget import Budget
from platform_assets.networks.private.gradients import RowGradients, rows_at_once, secret_generator
from platform_assets.networks.private.journal import Journal

if TYPE_CHECKING:
    import lightning.pytorch as pl
    from torch.optim import Optimizer

    from platform_assets.networks.course import Course
    from platform_assets.networks.feed.protocol import Batch
    from platform_assets.networks.fitting import Classifier
    from platform_assets.specs.guarantee import Guarantee

_MOST_BYTES = 256 << 20  # of the gradients of single rows that are held at once
_BLOCKS = 50  # that the planned steps are reserved in: what a kill costs at most, over the steps that it lost


class PrivateSteps:
    """Takes the optimiser's steps in its stead (opacus.optimizers.DPOptimizer around it)."""

    def __init__(self, module: Classifier, optimiser: Optimizer, *, budget: Budget, journal: Journal, batch: int, parts: int) -> None:
        from opacus.optimizers import DPOptimizer

        self._module, self._budget, self._journal, self._parts = module, budget, journal, parts
        self._gradients = RowGradients(module.network)
        self._at_once = rows_at_once(module.network, most_bytes=_MOST_BYTES)
        device = next(module.parameters()).device
        self._optimiser: Any = DPOptimizer(
            optimiser, noise_multiplier=budget.noise_multiplier, max_grad_norm=budget.privacy.max_grad_norm, expected_batch_size=batch,
            generator=secret_generator(device),
        )  # fmt: skip
        self._most = budget.most_steps

    def learn(self, batch: Batch) -> bool:
        """Take one step by a batch of any number of rows; False, and nothing done, once the declared epsilon is spent."""
        if not self._journal.begin(most=self._most):
            return False
        *inputs, target = batch
        inputs = self._module.vary(inputs)
        size = min(self._at_once, max(1, -(-len(target) // self._parts)))
        starts = range(0, max(1, len(target)), size)
        for start in starts:
            end = start + size
            self._gradients.lay_down([part[start:end] for part in inputs], target[start:end])
            self._optimiser.signal_skip_step(do_skip=start != starts[-1])
            self._optimiser.step()
            self._optimiser.zero_grad(set_to_none=True)
        return True

    def went_on_from(self, step: int) -> None:
        """Refuse to go on from a checkpoint whose steps are not in the journal."""
        if self._journal.steps < step:
            raise TrainingError(
                f"a checkpoint of step {step} is there, but only {self._journal.steps} private steps are recorded: "
                "what was spent cannot be told any more; give an empty folder for --out"
            )

    def settle(self) -> None:
        """Write down exactly what was taken."""
        self._journal.settle()

    @property
    def guarantee(self) -> Guarantee:
        """What holds of the weights as they are."""
        return self._budget.guarantee(self._journal.steps)


def begin_private(module: pl.LightningModule, optimiser: Optimizer, *, course: Course, rows: int, steps: int) -> PrivateSteps:
    """Make ready for private steps; TrainingError for what cannot be made private, in one sentence."""
    plan, privacy = course.plan, course.plan.privacy
    assert privacy is not None
    if course.folder is None:
        raise TrainingError("this network would learn from the rows of a private training beside it, which nobody counts; it is refused")
    if course.fabric.world_size > 1:
        raise TrainingError(f"training.privacy is kept by one process, and {course.fabric.world_size} were started; choose another profile")
    if privacy.delta * rows >= 1:
        raise TrainingError(
            f"training.privacy.delta is {privacy.delta:g} for {rows} training rows: such a guarantee allows one of them to be given away "
            f"whole; right would be well below {1 / rows:.2g}"
        )
    fit = _refuse_unfit(module, course)
    batch = min(plan.batch_size, rows)
    budget = Budget(privacy, sample_rate=batch / rows, planned_steps=plan.epochs * steps)
    journal = Journal(course.folder / "state", block=max(1, budget.planned_steps // _BLOCKS))
    return PrivateSteps(fit, optimiser, budget=budget, journal=journal, batch=batch, parts=course.run.micro_batches)


def _refuse_unfit(module: pl.LightningModule, course: Course) -> Classifier:
    """Return the module where every row's gradient can be taken by itself."""
    from opacus.validators import ModuleValidator

    from platform_assets.networks.fitting import Classifier

    plan, run = course.plan, course.run
    if not isinstance(module, Classifier):
        raise TrainingError(
            f"{type(module).__name__} is a LightningModule of its own, whose loss may mix rows; "
            "training.privacy takes the platform's architectures"
        )
    wrong = {
        "training.dropout": plan.dropout, "training.compile": run.compile, "training.gradient_checkpointing": run.gradient_checkpointing,
        "training.precision bf16-mixed": plan.precision != "32-true",
    }  # fmt: skip
    if found := [name for name, on in wrong.items() if on]:
        raise TrainingError(f"training.privacy takes gradients row by row, in float32 and without {', '.join(found)}; leave that out")
    module.train()
    if errors := ModuleValidator.validate(module.network):
        raise TrainingError(f"{plan.architecture} cannot be made private: {'; '.join(' '.join(str(error).split()) for error in errors)}")
    return module
