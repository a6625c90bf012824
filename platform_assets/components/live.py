"""A training while it runs, and what its machines' figures come to: shown in the run, in MLflow and to Prometheus, alerts on idle GPUs.

Whoever waits for a trainer polls a TrainingWatch every second or so. What the figures say belongs into stages.telemetry.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

import dagster as dg

from platform_assets.components.step import Step, key_of, picture
from platform_assets.errors import DataError, StateError, TrainingError
from platform_assets.specs.compute import ComputeProfile
from platform_assets.specs.spending import Used
from platform_assets.specs.telemetry import Point
from platform_assets.stages.telemetry.exposition import render
from platform_assets.stages.telemetry.idle import Device, Spell, watch_idle
from platform_assets.stages.telemetry.samples import Sample, SampleReader, read_samples, sum_up

if TYPE_CHECKING:
    from platform_assets.stages.telemetry.trace import Operator

FIRST_GAP_SECONDS = 10.0
GAP_GROWTH = 0.05  # of the time passed: 20 observations in the first 200 s, about 145 in a day, 220 in a month
MLFLOW_AFTER_SECONDS = 60.0  # its import costs 4 CPU seconds beside the training: a short one is logged at its end
STATE = "live.json"
TRACE = "trace.json.gz"
_GIB = 2**30


@dataclass(frozen=True)
class Watched:
    """Whose training it is: the asset it makes and who pays for it. What it runs on is the step's newest placement."""

    key: Sequence[str]
    model: str
    tenant: str


@contextmanager
def watching(step: Step, watched: Watched, *, out: Path) -> Iterator[TrainingWatch]:
    """Watch a training while the block waits for it; hand what it used to the step's meter, however it ends.

    A TrainingError closes its run in MLflow as failed. Whatever else ends the block leaves that open for the next run to go on with.
    """
    watch = TrainingWatch(step, watched, out=out)
    failed = False
    try:
        yield watch
    except TrainingError:
        failed = True
        raise
    finally:
        used = watch.end()
        if used is not None:
            step.meter.saw(used)
        if failed:
            watch.give_up()


class TrainingWatch:
    """Follows the telemetry of one training folder; a new one on the same folder goes on where the last one stopped."""

    def __init__(self, step: Step, watched: Watched, *, out: Path) -> None:
        self._step, self._watched, self._out = step, watched, out
        self._reader = SampleReader(out)
        self._recent: list[Sample] = []  # since the last observation
        self._newest: dict[int, Sample] = {}
        self._spells: dict[Device, Spell] = {}
        self._points: list[Point] = []
        state = _read_state(out / STATE)
        self.mlflow_run: str | None = state.get("mlflow_run")
        self._shown: float = state.get("shown", 0.0)
        self._began: float | None = None
        self._starts, self._since = 1, 0.0  # placements seen, and when the newest one's first sample came
        self._name = f"falaj_training_{watched.model}_{step.context.run.run_id[:8]}"

    def look(self, _out: Path) -> None:
        """Poll, as a look of components.onlookers."""
        self.poll()

    def poll(self) -> None:
        """Take in what the trainer wrote since the last call and show what is due; costs next to nothing when there is nothing new."""
        new = self._reader.new() if self._step.placed else []  # before its first start there is nothing of this run's to see
        if not new:
            return
        self._began = new[0].at if self._began is None else self._began
        if len(self._step.placed) > self._starts:
            self._starts, self._since = len(self._step.placed), new[0].at
        self._recent += [sample for sample in new if sample.at > self._shown]
        self._newest.update({sample.rank: sample for sample in new})
        self._alert(new)
        labels = {
            "model": self._watched.model,
            "tenant": self._watched.tenant,
            "profile": self._step.placed[-1].name,
            "run": self._step.context.run.run_id[:8],
        }
        self._step.parts.live_metrics.show(self._name, render(list(self._newest.values()), labels=labels))
        if self._recent and is_due(new[-1].at, shown=self._shown, began=self._began):
            self._show(new[-1].at)

    def end(self) -> Used | None:
        """Show the last figures, take the gauges down and return what the newest start used, as far as anybody looked."""
        self.poll()
        self._step.parts.live_metrics.withdraw(self._name)
        if self._recent:
            self._show(self._recent[-1].at)
        if self._points:
            self._log()
        return sum_up([sample for sample in read_samples(self._out) if sample.at >= self._since])

    def give_up(self) -> None:
        """Say that nothing comes of this training: its run in MLflow is closed as failed."""
        if self.mlflow_run is not None:
            self._step.parts.registry.drop_training(self.mlflow_run)

    def _show(self, at: float) -> None:
        """Put one observation into the run; MLflow gets it with those that waited for it to be opened."""
        assert self._began is not None
        figures, step = _figures(self._recent), max(sample.step for sample in self._recent)
        self._shown = at
        self._recent.clear()
        self._step.context.log_event(
            dg.AssetObservation(
                key_of(self._watched.key),
                metadata={"step": step, **{name: round(value, 4) for name, value in figures.items()}},
                description="figures of the running training",
            )
        )
        self._points.append(Point(at, step, {_MLFLOW.get(name, f"system/{name}"): value for name, value in figures.items()}))
        if self.mlflow_run is not None or at - self._began >= MLFLOW_AFTER_SECONDS:
            self._log()
        self._keep()

    def _log(self) -> None:
        registry = self._step.parts.registry
        if self.mlflow_run is None:
            try:
                self.mlflow_run = registry.start_training(self._watched.model, {"dagster_run": self._step.context.run.run_id})
            except StateError as error:
                self._step.context.log.warning("The training goes on unseen by MLflow: %s", error)
                self._points.clear()
                return
            self._keep()
        registry.log_live(self.mlflow_run, self._points)
        self._points.clear()

    def _keep(self) -> None:
        """Leave word for the watch after this one, should this process be killed."""
        with contextlib.suppress(OSError):  # on a full disk the next one shows some figures twice
            (self._out / STATE).write_text(json.dumps({"mlflow_run": self.mlflow_run, "shown": self._shown}))

    def _alert(self, new: Sequence[Sample]) -> None:
        placed = self._step.placed[-1]
        limit = placed.profile.idle_alert
        if limit is None:
            return
        self._spells, alerts = watch_idle(self._spells, new, longer_than_seconds=limit.total_seconds())
        for spell in alerts:
            if spell.until <= self._shown:  # told by the watch before this one
                continue
            sentence = (
                f"GPU {spell.gpu} of node {spell.node} has been held by the training of {self._watched.model} on "
                f"{placed.name} for {spell.seconds:.0f} s without work (declared: {limit.total_seconds():.0f} s)."
            )
            self._step.context.log.warning(sentence)
            self._step.parts.notifier.notify(f"{self._watched.model}: a held GPU idles", sentence, severity="warning")


def is_due(at: float, *, shown: float, began: float) -> bool:
    """Whether an observation is due at a time, the last one having been `shown` (0: none yet)."""
    return at - shown >= max(FIRST_GAP_SECONDS, GAP_GROWTH * (shown - began))


_MLFLOW = {"loss": "live/loss", "samples_per_second": "live/samples_per_second", "data_wait": "live/data_wait"}


def _figures(samples: Sequence[Sample]) -> dict[str, float]:
    """What a person wants to see of the time since the last look: means over it, newest loss, highest memory."""
    used = sum_up(samples)
    if used is None:
        return {}
    losses = {sample.rank: sample.loss for sample in samples if sample.loss is not None}
    rates = {s.rank: [o.samples_per_second for o in samples if o.rank == s.rank and o.samples_per_second is not None] for s in samples}
    powers = [gpu.power_watts for sample in samples for gpu in sample.gpus if gpu.power_watts is not None]
    heats = [gpu.temperature_c for sample in samples for gpu in sample.gpus if gpu.temperature_c is not None]
    known: dict[str, float | None] = {
        "loss": fmean(losses.values()) if losses else None,
        "samples_per_second": sum(fmean(one) for one in rates.values() if one) if any(rates.values()) else None,
        "data_wait": used.data_wait,
        "cores": used.cpu_cores_mean,
        "memory_gib": None if used.peak_memory_bytes is None else used.peak_memory_bytes / _GIB,
        "gpu_utilisation": used.gpu_utilisation,
        "gpu_memory_gib": None if used.peak_gpu_memory_bytes is None else used.peak_gpu_memory_bytes / _GIB,
        "gpu_power_watts": fmean(powers) if powers else None,
        "gpu_temperature_c": max(heats, default=None),
    }
    return {name: float(value) for name, value in known.items() if value is not None}


def _read_state(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError):
        return {}


def telemetry_metadata(folder: Path, *, profile: str, profiles: Mapping[str, ComputeProfile], since: float = 0.0) -> dict[str, Any]:
    """What a person sees of a finished training's machines: the picture, where its time went, and whether its profile fits.

    `since`: when the start that ran on this profile began (epoch seconds).
    """
    from platform_assets.stages.telemetry.pictures import draw_telemetry
    from platform_assets.stages.telemetry.rightsizing import advise
    from platform_assets.stages.telemetry.trace import top_operators

    shown: dict[str, Any] = {}
    samples = read_samples(folder)
    if samples:
        shown["machine"] = picture(draw_telemetry(samples))
    used = sum_up([sample for sample in samples if sample.at >= since])
    if used is not None:
        if profile in profiles:  # an old training's may be declared no more
            shown["right_sizing"] = advise(profile, profiles=profiles, used=used).sentence
        if used.data_wait is not None:
            shown["data_wait"] = used.data_wait
    if (folder / TRACE).is_file():
        try:
            shown["operators"] = dg.MetadataValue.md(operator_table(top_operators(folder / TRACE)))
        except DataError as error:  # a finished training is not failed for its trace
            shown["operators"] = str(error)
    return shown


def operator_table(operators: Sequence[Operator]) -> str:
    """Write operators as a table in Markdown."""
    rows = [f"| {one.name[:60]} | {one.place} | {one.calls} | {one.self_ms:.2f} | {one.share:.0%} |" for one in operators]
    return "\n".join(["| operator | on | calls | own ms | share |", "|---|---|---|---|---|", *rows])
