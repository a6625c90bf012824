"""The step loop of every training: a LightningModule over a feed, on lightning.fabric, with its state kept and put back.

The global batch is the plan's over all ranks: each rank's loss counts by its share of the rows, so N ranks and one compute the same mean.
Between steps nothing is read off the device. Every half second or so all ranks hold a pulse: they agree whether to stop, to save, or to
fall back because the loss is not finite.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import nn

from platform_assets.errors import DivergedError, PreemptedError, TrainingError
from platform_assets.networks import snapshots
from platform_assets.networks.blocks import recompute_activations
from platform_assets.networks.compiling import compile_network, refusal_told
from platform_assets.networks.course import Course, difference
from platform_assets.networks.launch import highest, total
from platform_assets.networks.modules import loss_of, read_optimisation
from platform_assets.networks.private import private_steps
from platform_assets.networks.snapshots import Average
from platform_assets.networks.states import States
from platform_assets.networks.trace import Trace

if TYPE_CHECKING:
    import lightning.pytorch as pl

    from platform_assets.networks.feed.protocol import Batch, Feed
    from platform_assets.specs.guarantee import Guarantee

PULSE_SECONDS = 0.5
LINE_SECONDS = 30.0  # between progress lines within an epoch
SETBACKS = 2  # falls back to a checkpoint with half the learning rate before a training is given up
MEMORY = 0.98  # of the moving average of the weights, per step; shorter early on


class _NotFiniteError(Exception):
    """The loss or a weight is not finite; caught by the loop itself."""


class Loop:
    """One training. `judge` is called with the module in evaluation mode after each epoch and returns figures for the curve."""

    def __init__(
        self, module: pl.LightningModule, *, feed: Feed, course: Course, judge: Callable[[nn.Module], Mapping[str, float]]
    ) -> None:
        plan, run, fabric = course.plan, course.run, course.fabric
        if not module.automatic_optimization:
            raise TrainingError(f"{type(module).__name__} optimises by hand; leave automatic_optimization on, the loop takes the steps")
        if feed.steps == 0:
            raise TrainingError(f"the {feed.rows} training rows fill no batch of {plan.batch_size}; lower training.batch_size")
        self._module, self._feed, self._course, self._judge = module, feed, course, judge
        self._world, self._rank = fabric.world_size, fabric.global_rank
        for weight in module.parameters():
            weight.requires_grad_(weight.requires_grad and weight.numel() > 0)  # DDP would wait for the gradient of an empty one for ever
        if run.gradient_checkpointing:
            recompute_activations(module)
        if run.compile:
            compile_network(module)
        self._model = fabric.setup_module(module)
        self._optimiser, self._scheduler, self._every_step = read_optimisation(module.configure_optimizers())
        self._stepper: Any = fabric.setup_optimizers(self._optimiser)
        self._weights = [weight for group in self._optimiser.param_groups for weight in group["params"] if weight.requires_grad]
        self._private, self._spent = private_steps(module, self._optimiser, course=course, feed=feed), False
        self._average = Average(module.parameters()) if getattr(module, "averages", False) else None
        self._forward = self._model.training_step
        self._cast = fabric.autocast if plan.precision == "bf16-mixed" else nullcontext
        self._global_rows = min(plan.batch_size, feed.rows)
        self._losses = torch.zeros((), dtype=torch.float64, device=fabric.device)
        self._states = States(course.folder / "state", keep=run.keep_checkpoints) if course.folder is not None else None
        self._epoch = self._step = self._setbacks = 0
        self._factor = 1.0
        self._saved_step = -1
        self._saved_at = self._pulsed_at = self._told_at = time.monotonic()
        self._next_pulse = self._pulsed_step = 0
        self.curve: list[dict[str, float]] = []

    @property
    def _done(self) -> int:
        return self._epoch * self._feed.steps + self._step

    @property
    def setbacks(self) -> int:
        """How often a loss that was not finite took the training back to a checkpoint."""
        return self._setbacks

    @property
    def guarantee(self) -> Guarantee | None:
        """What a private training guarantees of its weights."""
        return self._private.guarantee if self._private is not None else None

    def run(self) -> None:
        """Train to the end from where an earlier start stopped; the module is left with its averaged weights, in evaluation mode.

        Raises PreemptedError when asked to stop, with the state saved, and DivergedError.
        """
        self._resume()
        trace = self._open_trace()
        try:
            while self._epoch < self._course.plan.epochs and not self._spent:
                try:
                    with refusal_told() if self._course.run.compile else nullcontext():
                        self._run_epoch(trace)
                        self._close_epoch()
                except _NotFiniteError:
                    self._fall_back()
            self._save()
        finally:
            if trace is not None:
                trace.end()
            if self._private is not None:
                self._private.settle()
            if self._states is not None:
                self._states.wait()
                self._tell_written()
        if self._average is not None:
            self._average.swap()
        self._model.eval()

    # --- steps

    def _run_epoch(self, trace: Trace | None) -> None:
        figures, trail, stop, clock = self._course.figures, self._course.trail, self._course.stop, time.perf_counter
        alone = self._world == 1
        self._model.train()
        self._epoch_began, self._epoch_waited, self._epoch_first = clock(), figures.waited_seconds, self._step
        asked = clock()
        for batch in self._feed.batches(self._epoch, start=self._step):
            figures.waited_seconds += clock() - asked
            if not self._learn(batch):
                self._spent = True
                break
            self._step += 1
            figures.step = done = self._done
            figures.samples += len(batch[-1])
            trail.mark(done)
            if trace is not None:
                trace.advance()
            if done >= self._next_pulse or (alone and stop.reason is not None):
                self._pulse()
            asked = clock()

    def _learn(self, batch: Batch) -> bool:
        """Take one step; False where privacy pays for no more."""
        if self._course.fabric.device.type != "cpu":
            batch = tuple(part.to(self._course.fabric.device, non_blocking=True) for part in batch)
        if self._private is not None:
            return self._private.learn(batch) and self._moved()
        count = self._course.run.micro_batches
        if count == 1:
            self._add_gradients(batch)
        else:
            cuts = [list(part.tensor_split(count)) for part in batch]
            parts = [tuple(part) for part in zip(*cuts, strict=True) if len(part[-1])]
            for place, part in enumerate(parts, start=1):
                with self._course.fabric.no_backward_sync(self._model, enabled=place < len(parts)):
                    self._add_gradients(part)
        if self._course.plan.clip_norm:
            nn.utils.clip_grad_norm_(self._weights, self._course.plan.clip_norm)
        self._stepper.step()
        self._optimiser.zero_grad(set_to_none=True)
        return self._moved()

    def _moved(self) -> bool:
        """Let the schedule and the average follow a step."""
        if self._scheduler is not None and self._every_step:
            self._scheduler.step()
        if self._average is not None:
            self._average.move(1 - min(MEMORY, (self._done + 1) / (self._done + 11)))
        return True

    def _add_gradients(self, part: Batch) -> None:
        with self._cast():
            loss = loss_of(self._forward(part, self._step), self._module)
        share = len(part[-1]) / self._global_rows
        scale = share * self._world  # DDP and FSDP2 take the mean over ranks
        self._course.fabric.backward(loss if scale == 1 else loss * scale)
        self._losses.add_(loss.detach(), alpha=share)

    def _close_epoch(self) -> None:
        """Judge the averaged weights; asked to stop meanwhile, save the state from before, so that a new start judges again."""
        loss = total(float(self._losses), fabric=self._course.fabric) / self._feed.steps
        if not (math.isfinite(loss) and self._finite_weights()):
            raise _NotFiniteError
        shown, pace = self._show(loss), self._pace()
        if self._average is not None:
            self._average.swap()
        self._module.eval()
        try:
            judged = self._judge(self._module)
        except PreemptedError:
            if self._average is not None:
                self._average.swap()
            self._save(wait=True)
            raise
        if self._average is not None:
            self._average.swap()
        logged = {name: value for name, value in self._course.fabric.take_logged().items() if name not in {"epoch", "train_loss"}}
        self.curve.append({"epoch": self._epoch + 1, **shown, **logged, **judged})
        self._course.report.step(f"{self._course.name}/epoch", epochs=float(self._course.plan.epochs), **self.curve[-1], **pace)
        self._losses.zero_()
        if self._scheduler is not None and not self._every_step:
            self._scheduler.step()
        self._epoch, self._step = self._epoch + 1, 0

    # --- what ranks agree on

    def _pulse(self) -> None:
        run, now, done = self._course.run, time.monotonic(), self._done
        due = self._states is not None and self._states.due(now - self._saved_at, every_seconds=run.checkpoint_seconds)
        lost = float(self._losses)
        self._show(lost * self._world / max(1, self._step))  # its readers take the mean over ranks
        seconds = (now - self._pulsed_at) / max(1, done - self._pulsed_step)
        stop, broken, due_by_time, slowest = highest(
            [float(self._course.stop.reason is not None), float(not math.isfinite(lost)), float(due), seconds], fabric=self._course.fabric
        )
        self._pulsed_at, self._pulsed_step = now, done
        self._next_pulse = done + max(1, int(PULSE_SECONDS / max(slowest, 1e-9)))
        due_by_steps = run.checkpoint_steps is not None and done % run.checkpoint_steps == 0
        if run.checkpoint_steps is not None:
            self._next_pulse = min(self._next_pulse, (done // run.checkpoint_steps + 1) * run.checkpoint_steps)
        self._tell_written()
        if broken:
            raise _NotFiniteError
        if stop:
            self._save(wait=True)
            raise PreemptedError(self._course.stop.reason or "stopped by another process of this training")
        if due_by_time or due_by_steps:
            self._save()
        if now - self._told_at >= LINE_SECONDS:
            self._told_at = now
            shown = self._show(total(lost, fabric=self._course.fabric) / max(1, self._step))
            rate = float(self._optimiser.param_groups[0]["lr"])
            self._course.report.step(f"{self._course.name}/steps", at=float(done), **shown, learning_rate=rate, **self._pace())

    def _show(self, loss: float) -> dict[str, float]:
        """Tell the training loss; a private training's is nobody's to see: it is a mean over rows, without noise."""
        if self._private is not None:
            return {}
        self._course.figures.loss = loss
        return {"train_loss": loss}

    def _finite_weights(self) -> bool:
        norms = torch.stack([snapshots.local(weight.detach()).norm() for weight in self._weights])
        return highest([float(not torch.isfinite(norms).all())], fabric=self._course.fabric)[0] == 0

    def _pace(self) -> dict[str, float]:
        """Samples per second over all ranks, and the share of this epoch's time that this rank waited for rows."""
        seconds = max(1e-9, time.perf_counter() - self._epoch_began)
        steps = self._step - self._epoch_first
        waited = self._course.figures.waited_seconds - self._epoch_waited
        return {"samples_per_second": round(steps * self._global_rows / seconds, 1), "data_wait": round(waited / seconds, 5)}

    # --- the state

    def _save(self, *, wait: bool = False) -> None:
        """Copy the state and let a thread write it; a state that is not finite, or saved already, is left alone."""
        if self._states is None:
            return
        if self._saved_step != self._done and self._finite_weights():
            state = self._take()
            if self._rank == 0:
                self._states.write(self._done, state)
            self._saved_step = self._done
        self._saved_at = time.monotonic()
        if wait:
            self._states.wait()
            self._tell_written()

    def _take(self) -> dict[str, Any]:
        keep = self._rank == 0
        chance: list[Any] = [snapshots.take_chance()]
        if self._world > 1:
            mine, chance = chance[0], [None] * self._world
            dist.all_gather_object(chance, mine)
        return {
            "identity": self._identity(), "epoch": self._epoch, "step": self._step,
            "losses": total(float(self._losses), fabric=self._course.fabric),
            "curve": list(self.curve), "factor": self._factor, "setbacks": self._setbacks, "chance": chance,
            "module": snapshots.take_module(self._module, keep=keep),
            "optimiser": snapshots.take_optimiser(self._optimiser, self._module, keep=keep),
            "scheduler": self._scheduler.state_dict() if self._scheduler is not None else None,
            "average": self._average.take(keep=keep) if self._average is not None else None,
        }  # fmt: skip

    def _identity(self) -> dict[str, Any]:
        return {"plan": asdict(self._course.plan), "rows": self._feed.rows}

    def _put(self, state: Mapping[str, Any]) -> None:
        if state["identity"] != self._identity():
            raise TrainingError(
                f"{self._course.folder} holds the state of another training: {difference(state['identity'], self._identity())}; "
                "give an empty folder for --out"
            )
        snapshots.put_module(self._module, state["module"])
        snapshots.put_optimiser(self._optimiser, self._module, state["optimiser"])
        if self._scheduler is not None:
            self._scheduler.load_state_dict(state["scheduler"])
        if self._average is not None:
            self._average.put(state["average"])
        self._epoch, self._step, self._factor = state["epoch"], state["step"], state["factor"]
        self._setbacks = max(self._setbacks, state["setbacks"])
        self.curve = list(state["curve"])
        self._losses.fill_(state["losses"] if self._rank == 0 else 0.0)
        if self._rank < len(state["chance"]):
            snapshots.put_chance(state["chance"][self._rank])
        else:  # more ranks than when it was saved
            snapshots.seed_chance(self._course.plan.seed + self._done, rank=self._rank)
        self._saved_step = self._pulsed_step = self._done
        self._saved_at = self._pulsed_at = time.monotonic()
        self._next_pulse = 0

    def _load(self) -> int:
        """Put the newest whole checkpoint back, the same on all ranks; return its step, or -1 when there is none."""
        assert self._states is not None
        self._states.wait()
        newest = self._states.load(on_damage=self._say) if self._rank == 0 else None
        step = int(self._course.fabric.broadcast(-1 if newest is None else newest[0]))
        if step >= 0:
            self._put(newest[1] if newest is not None else self._states.load_step(step))
        return step

    def _resume(self) -> None:
        """Go on from the newest whole checkpoint; without one, save the beginning: it is what a broken first step falls back to."""
        if self._states is None:
            return
        assert self._course.folder is not None
        trail = self._course.trail
        reached = trail.follow(self._course.folder / "state" / "position") if self._rank == 0 else 0
        if self._rank == 0:
            self._states.tidy()
        step = self._load()
        if step < 0:
            trail.mark(0)
            self._save()
            return
        if self._private is not None:
            self._private.went_on_from(step)
        trail.resume(step, reached=reached)
        self._course.report.step(f"{self._course.name}/resumed", at=float(step), lost_steps=float(trail.lost_steps))

    def _fall_back(self) -> None:
        """Go back to the last good checkpoint with half the learning rate."""
        epoch, done = self._epoch + 1, self._done
        where = f"the training loss was not finite in epoch {epoch}, by step {done}"
        rate = self._course.plan.learning_rate
        if self._states is None:
            raise DivergedError(f"{where}; lower training.learning_rate ({rate:g}) in the declaration")
        if self._setbacks == SETBACKS:
            raise DivergedError(
                f"{where}, although the learning rate was halved {SETBACKS} times, from {rate:g} to {rate * self._factor:g}; "
                "lower training.learning_rate in the declaration or look for broken values in the training rows"
            )
        setbacks = self._setbacks + 1
        step = self._load()
        if step < 0:
            raise DivergedError(f"{where}, and no checkpoint could be written to go back to; make room in {self._course.folder}")
        self._setbacks = setbacks
        self._slow_down(0.5)
        self._course.trail.lost_steps += done - step
        self._course.report.step(
            f"{self._course.name}/fell_back", at=float(step), lost_steps=float(done - step), rate_factor=self._factor, why=where
        )
        self._saved_step = -1
        self._save(wait=True)  # a start after a kill must know of the setback

    def _slow_down(self, factor: float) -> None:
        self._factor *= factor
        for group in self._optimiser.param_groups:
            group["lr"] *= factor
            if "initial_lr" in group:
                group["initial_lr"] *= factor
        if self._scheduler is not None:
            self._scheduler.base_lrs = [rate * factor for rate in self._scheduler.base_lrs]

    def _tell_written(self) -> None:
        for written in self._states.take_told() if self._states is not None else ():
            if written.why is None:
                figures = {"at": float(written.step), "size_bytes": float(written.size_bytes), "seconds_writing": written.seconds}
                self._course.report.step(f"{self._course.name}/checkpoint", **figures)
            else:
                self._say(f"{written.why}; the training goes on, its last whole checkpoint stays")

    def _say(self, sentence: str) -> None:
        self._course.report.step(f"{self._course.name}/warning", why=sentence)

    def _open_trace(self) -> Trace | None:
        if self._course.folder is None or self._rank != 0 or not self._course.run.trace_steps:
            return None
        left = self._course.plan.epochs * self._feed.steps - self._done
        return Trace(self._course.folder / "trace.json.gz", steps=self._course.run.trace_steps, total=left)
