"""`falaj sweep`: trials of a model's declared search, one run each, then a release of the best network, if it is not the declared one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import dagster as dg

from platform_assets import keys
from platform_assets.components.step import latest_record
from platform_assets.definitions import bind_parts, load_defs
from platform_assets.errors import Fault, SpecError, StageError
from platform_assets.main_job import site
from platform_assets.main_job.jobs import Jobs
from platform_assets.main_job.progress import Bars
from platform_assets.specs.records import GateVerdict, TrainingSet
from platform_assets.specs.sweep import Sweep
from resources.dagster_instance import gate
from resources.home import hold
from resources.settings import Settings, apply_to_this_process

if TYPE_CHECKING:
    from rich.console import Console

    from platform_assets.specs.model import ModelSpec


def run_sweep(settings: Settings, model: str, *, trials: int, console: Console) -> dict[str, Any]:
    """Run so many more trials, fewer where the budget nears its end; return the study's state and what came of the best trial."""
    with hold(settings.home, "falaj sweep"):
        site.prepare(settings)
        apply_to_this_process(settings)
        bars = Bars(console)
        parts = bind_parts(settings, watcher=bars)
        spec = _searchable(model, parts.catalogue.models)
        with dg.DagsterInstance.get() as instance:
            jobs = Jobs(instance, load_defs(parts).get_repository_def(), bars, parts)
            if latest_record(instance, keys.model_key(model, "training_set"), TrainingSet) is None:
                raise StageError(f"{model} has no training set to search on yet; make one with `falaj run {model}` first.")
            count, why = gate.admission_of(parts).shrink(model, trials)
            if count < trials:
                console.print(why, style="yellow", highlight=False)
            with bars.shown(), bars.phase(f"{model}: trials", count, of="steps"):
                for _ in range(count):
                    jobs.run(keys.sweep_job(model))
            record = latest_record(instance, keys.model_key(model, keys.SWEEP), Sweep)
            verdict = None
            if record is not None and record.beats_declared:
                with bars.shown(), bars.phase(f"{model}: release of trial {record.best}", jobs.steps(keys.release_job(model)), of="steps"):
                    jobs.run(keys.release_job(model))
                verdict = latest_record(instance, keys.model_key(model, "gate_verdict"), GateVerdict)
    return _summary(spec, record, verdict)


def _searchable(model: str, declared: Any) -> ModelSpec:
    if model not in declared:
        raise SpecError([Fault("falaj sweep", model, f"no model of this name; declared: {', '.join(sorted(declared))}")])
    spec: ModelSpec = declared[model]
    if not spec.training.search:
        raise SpecError(
            [
                Fault(
                    f"model {model}",
                    "training.search",
                    "no search space is declared; write for example learning_rate: {low: 0.0005, high: 0.01}",
                )
            ]
        )
    return spec


def _summary(spec: ModelSpec, record: Sweep | None, verdict: GateVerdict | None) -> dict[str, Any]:
    if record is None or record.best is None:
        sentence = "No trial was trained to its end; the runs' logs say why."
    elif verdict is None:
        sentence = "No trial beat the declared values; nothing was released."
    elif verdict.passed:
        sentence = f"Trial {record.best} is a release now: `falaj release list {spec.name}`; the next rollout deploys it."
    else:
        sentence = f"Trial {record.best} did not pass the gates: {verdict.sentence}"
    return {
        "model": spec.name, "metric": f"calibration {spec.leading_metric}", "trials": record.counts if record else {},
        "best": {"trial": record.best, "value": record.value, "values": record.changes} if record else None, "sentence": sentence,
    }  # fmt: skip
