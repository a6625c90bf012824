"""Area `orchestration`: what this platform adds to a function that an asset's step calls, in process, with SQLite storage.

A chain of assets that do nothing, once as the platform's steps (ledger, audit, record, profile) and once as bare Dagster assets. What a run
costs besides its steps falls out: the figure is the difference between a long chain and a short one, a step.
As a program, `... step_overhead FOLDER`, it is one such measurement.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from platform_assets.main_job.bench.core import Row, describe_row, interleave, judge_row, run_contestant

if TYPE_CHECKING:
    import dagster as dg
    from rich.console import Console

    from resources.parts import Parts

_SHORT, _LONG = 2, 14
_MODEL, _TIMES = "digits_000", 3


def measure(*, quick: bool, console: Console) -> list[Row]:
    """Return CPU and wall seconds a step, beside bare Dagster's."""
    console.print("orchestration, what a step costs over its function ...")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run = partial(run_contestant, "platform_assets.main_job.bench.step_overhead")
        found = interleave({"step": lambda: run([str(Path(tempfile.mkdtemp(dir=folder)))])}, repeats=1 if quick else 3)["step"]
    return [
        judge_row("an asset step of the platform over its function, CPU", value=found["ours_cpu_seconds"], unit="s", must=0.25, aim=0.16,
                  better="lower", against=f"bare Dagster: {found['bare_cpu_seconds']:.3f} s"),
        describe_row("the same, wall", value=found["ours_wall_seconds"], unit="s", against=found["bare_wall_seconds"]),
    ]  # fmt: skip


def main(folder: Path) -> dict[str, float]:
    """Return seconds a step of either kind; the least of several runs, since what comes between only adds."""
    import dagster as dg

    from platform_assets.definitions import bind_parts
    from platform_assets.main_job import site
    from platform_assets.main_job.bench.orchestration import write_models
    from resources.settings import Home, Settings

    write_models(folder / "defs", count=1)
    settings = Settings(
        home=Home(folder / "home"), environment="laptop", defs_root=folder / "defs", webhook_url=None, serve_port=0, web_port=0
    )
    site.prepare(settings)
    parts = bind_parts(settings)
    figures = {}
    with dg.DagsterInstance.from_config(str(settings.home.instance)) as instance:
        for name, build in (("ours", partial(_platform_steps, parts)), ("bare", _bare_steps)):
            _run(build(1), parts, instance)  # imports, tables that are made at first use
            short, long = (min(_run(build(count), parts, instance) for _ in range(_TIMES)) for count in (_SHORT, _LONG))
            for what, less, more in zip(("cpu", "wall"), short, long, strict=True):
                figures[f"{name}_{what}_seconds"] = (more - less) / (_LONG - _SHORT)
    return figures


def _run(assets: list[dg.AssetsDefinition], parts: Parts, instance: dg.DagsterInstance) -> tuple[float, float]:
    import dagster as dg

    job = dg.Definitions(
        assets=assets, jobs=[dg.define_asset_job("chain", executor_def=dg.in_process_executor)], resources={"parts": parts}
    ).resolve_job_def("chain")  # fmt: skip
    cpu, wall = time.process_time(), time.perf_counter()
    job.execute_in_process(instance=instance, raise_on_error=True)
    return time.process_time() - cpu, time.perf_counter() - wall


def _platform_steps(parts: Parts, count: int) -> list[dg.AssetsDefinition]:
    from platform_assets.components.step import Outcome, Step, build_step
    from platform_assets.specs.records import TablePin
    from platform_assets.stages.placement.binding import bind

    def work(step: Step) -> Outcome:
        del step
        return Outcome(TablePin("a/b/c", 1, 1, "h"), "v")

    profile, compute = parts.catalogue.profile_of(_MODEL, "release")
    binding = bind(compute, name=profile, tenant="t", model=_MODEL)
    keys = [["model", _MODEL, f"link_{number:02}"] for number in range(count)]
    return [
        build_step(key, work, deps=[keys[number - 1]] if number else [], group="chain", description="A link.", owner="team:bench",
                   kinds=set(), code_version="1", binding=binding)
        for number, key in enumerate(keys)
    ]  # fmt: skip


def _bare_steps(count: int) -> list[dg.AssetsDefinition]:
    import dagster as dg

    def build(number: int) -> Any:
        @dg.asset(name=f"link_{number:02}", deps=[f"link_{number - 1:02}"] if number else [])
        def link() -> None:
            return None

        return link

    return [build(number) for number in range(count)]


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(Path(sys.argv[1]))) + "\n")
