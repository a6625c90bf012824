"""The main job from start to end: hold the home, start what runs beside, live each model's loop, sum up."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import dagster as dg
from rich.console import Console

from platform_assets.components.tree import forget_trees
from platform_assets.definitions import bind_parts, load_defs
from platform_assets.errors import Fault, ReleaseError, SpecError
from platform_assets.main_job import loop, site, summary
from platform_assets.main_job.jobs import Jobs
from platform_assets.main_job.progress import Bars
from platform_assets.main_job.report import write_report
from platform_assets.main_job.spending import spending_now
from resources import processes
from resources.home import bind_sources, clear_scratch, hold, write_atomically
from resources.serving import connect
from resources.settings import Settings, apply_to_this_process


def run_main_job(settings: Settings, *, models: Sequence[str], sources: Mapping[str, str], console: Console) -> dict[str, Any]:
    """Run the whole loop for these models (all when empty) and return the summary; the report is written beside it."""
    started, began = time.monotonic(), time.time()
    with hold(settings.home, "falaj run"), summary.peak_memory() as peak:
        site.prepare(settings)
        apply_to_this_process(settings)
        bind_sources(settings.home, sources)
        forget_trees()
        bars = Bars(console)
        parts = bind_parts(settings, watcher=bars)
        catalogue = parts.catalogue
        _known_models(models, catalogue.models)
        ended = processes.end_orphans(settings.home)
        with dg.DagsterInstance.get() as instance:
            jobs = Jobs(instance, load_defs(parts).get_repository_def(), bars, parts)
            alone = processes.running(settings.home, site.DAEMON) is None
            if alone:
                clear_scratch(settings.home)
            if alone and (closed := jobs.close_orphans()):
                console.print(
                    f"An earlier main job was cut off: {closed} runs closed, {ended} processes ended; going on from what is stored."
                )
            wanted = {name: catalogue.models[name] for name in models or catalogue.models}
            for model in wanted.values() if alone else ():
                loop.close_cut_off(model, catalogue.dataset_of(model.name), parts)
            with bars.shown(), site.beside(settings):
                client = connect(settings)
                refused: dict[str, str] = {}
                for model in wanted.values():
                    if alone:
                        loop.settle(model, parts)
                    if (why := loop.train_and_release(model, parts, jobs)) is not None:
                        refused[model.name] = why
                for model in wanted.values():
                    for sentence in loop.live(model, catalogue.dataset_of(model.name), parts, jobs, client):
                        console.print(f"{model.name}: {sentence}", style="yellow", highlight=False)
            rows = [
                summary.summarise_model(model, catalogue.dataset_of(name), parts, instance, since=began) for name, model in wanted.items()
            ]
            result = {
                "models": rows,
                "refused": refused,
                "report": "",
                "spend": spending_now(parts),
                "wall_seconds": round(time.monotonic() - started, 1),
                "peak_rss_bytes": peak["bytes"],
            }
            result["report"] = str(write_report(settings.home.reports, result, catalogue, parts, instance))
    return result


def raise_refusals(result: Mapping[str, Any]) -> None:
    """ReleaseError where a gate refused what this main job trained: a pipeline stops there, and what was live before still is."""
    if result["refused"]:
        told = "; ".join(f"{model} was {why}" for model, why in sorted(result["refused"].items()))
        raise ReleaseError(f"{told}. No release was made of it; what was live before still is.")


def write_json(path: Path, result: Mapping[str, Any]) -> None:
    """Write the summary for programs."""
    write_atomically(path, json.dumps(result, indent=2, sort_keys=True).encode())


def _known_models(asked: Sequence[str], declared: Mapping[str, Any]) -> None:
    faults = [
        Fault("falaj run", name, f"no model of this name; declared: {', '.join(sorted(declared))}")
        for name in asked
        if name not in declared
    ]
    if faults:
        raise SpecError(faults)
