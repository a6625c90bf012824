"""Area `orchestration`: loading many models, and what lies between a sensor's word and a run's first step.

Many models: copies of the shipped ones, each with a dataset of its own, loaded in a process of its own up to the repository's snapshot.
From word to step: events in a home of their own, through the real daemon; once with this platform's launcher, once with Dagster's.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import yaml

from platform_assets.main_job import site
from platform_assets.main_job.bench.core import describe_row, interleave, judge_row, run_contestant
from platform_assets.specs.events import Event
from resources.settings import CHECKOUT, Home, Settings, child_environment, read_settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console

    from platform_assets.main_job.bench.core import Row

FEW, MANY = 20, 200
_SHIPPED = CHECKOUT / "platform_assets" / "defs"
_LOADER = "platform_assets.main_job.bench.load_location"
_MODEL, _DATASET = "digits", "digits"
_UP_SECONDS, _RUN_SECONDS, _END_SECONDS = 120.0, 90.0, 30.0
_OURS = ("module: resources.dagster_instance.warm_launcher", "class: WarmRunLauncher", "dequeue_interval_seconds: 1")


def measure(*, quick: bool, console: Console) -> list[Row]:
    """Load 200 models and 20; follow events to their runs. Quick: one load of each, two events."""
    with tempfile.TemporaryDirectory() as name:
        return [
            *_measure_loading(Path(name) / "loading", repeats=1 if quick else 3, console=console),
            *_measure_starts(Path(name) / "starts", events=2 if quick else 7, console=console),
        ]


def _measure_loading(folder: Path, *, repeats: int, console: Console) -> list[Row]:
    console.print(f"orchestration, {MANY} models and {FEW}, each loaded in a process of its own ...")
    contestants = {}
    for count in (FEW, MANY):
        write_models(folder / str(count), count=count)
        contestants[str(count)] = partial(run_contestant, _LOADER, [str(folder / str(count)), str(folder / f"home-{count}")])
    found = interleave(contestants, repeats=repeats)
    few, many = found[str(FEW)], found[str(MANY)]
    about = f"{MANY} models, {many['assets']:.0f} assets, {many['checks']:.0f} checks"
    return [
        judge_row(f"loading {about}, up to the snapshot", value=many["cpu_seconds"], unit="CPU s", must=20, aim=10, better="lower"),
        judge_row(f"the same, {FEW} to {MANY} models", value=many["cpu_seconds"] / few["cpu_seconds"], unit="x", must=12, aim=10,
                  better="lower"),
        judge_row("peak memory of that process", value=many["peak_bytes"] / 2**20, unit="MiB", must=400, aim=250, better="lower"),
        describe_row("importing, before any declaration", value=many["import_cpu_seconds"], unit="CPU s"),
    ]  # fmt: skip


def write_models(folder: Path, *, count: int) -> None:
    """Write a tree of so many copies of the shipped picture model, each on a dataset of its own."""
    for number in range(count):
        for kind, name in (("models", _MODEL), ("datasets", _DATASET)):
            document = yaml.safe_load((_SHIPPED / kind / name / "defs.yaml").read_text())
            document["attributes"]["name"] = f"{name}_{number:03}"
            if kind == "models":
                document["attributes"]["dataset"] = f"{_DATASET}_{number:03}"
            target = folder / kind / document["attributes"]["name"] / "defs.yaml"
            target.parent.mkdir(parents=True)
            target.write_text(yaml.safe_dump(document))
    compute = folder / "compute" / "defs.yaml"
    compute.parent.mkdir(parents=True)
    compute.write_text((_SHIPPED / "compute" / "defs.yaml").read_text())


def _measure_starts(folder: Path, *, events: int, console: Console) -> list[Row]:
    console.print(f"orchestration, {events} events to their runs, with two launchers ...")
    write_models(folder / "defs", count=1)
    dataset = next((folder / "defs" / "datasets").glob("*/defs.yaml"))
    document = yaml.safe_load(dataset.read_text())
    # Not there: the run ends at its first step, which is all that is measured.
    document["attributes"]["source"] = {"kind": "file", "path": str(folder / "nowhere.parquet")}
    dataset.write_text(yaml.safe_dump(document))
    settings = replace(read_settings(), home=Home(folder / "ours"), defs_root=folder / "defs", webhook_url=None)
    ours = _follow(settings, daemon="resources.dagster_instance.daemon", events=events, bare=False)
    theirs = _follow(replace(settings, home=Home(folder / "theirs")), daemon="dagster._daemon", events=events, bare=True)
    return [
        judge_row("from the sensor's word to the run's start, median", value=median(ours), unit="s", must=3, aim=1, better="lower",
                  against=f"Dagster's own launcher, queue and daemon: {median(theirs):.1f} s"),
        describe_row("the same, longest", value=max(ours), unit="s", against=max(theirs)),
    ]  # fmt: skip


def _follow(settings: Settings, *, daemon: str, events: int, bare: bool) -> list[float]:
    """Seconds between each run's creation by the sensor and its start."""
    import dagster as dg

    from platform_assets.specs.catalogue import load_catalogue
    from resources.parts import build_parts

    site.prepare(settings)
    if bare:
        file = settings.home.instance / "dagster.yaml"
        lines = [line for line in file.read_text().splitlines() if line.strip() not in (*_OURS, "run_launcher:")]
        file.write_text("\n".join(lines))
    inbox, found = build_parts(settings, load_catalogue(settings.defs_root)).inbox, []
    with run_daemon(settings, daemon), dg.DagsterInstance.from_config(str(settings.home.instance)) as instance:
        for number in range(events + 1):
            name, data = f"bench-{number}", {"dataset": f"{_DATASET}_000"}
            inbox.publish(Event(id=name, source="/bench", type="falaj.data.landed", time=datetime.now(UTC), data=data))
            record = _ended(instance, runs=number + 1)
            if number:  # the first waits for the daemon to come up
                found.append(record.start_time - record.create_timestamp.timestamp())
    return found


def _ended(instance: Any, *, runs: int) -> Any:
    deadline = time.monotonic() + (_UP_SECONDS if runs == 1 else _RUN_SECONDS)
    while time.monotonic() < deadline:
        records = instance.get_run_records(limit=1)
        if instance.get_runs_count() >= runs and records[0].dagster_run.is_finished:
            return records[0]
        time.sleep(0.1)
    raise TimeoutError(f"run {runs} did not end in time")


@contextmanager
def run_daemon(settings: Settings, module: str = "resources.dagster_instance.daemon") -> Iterator[int]:
    """Run the daemon of a home; inside it runs, by this pid."""
    settings.home.logs.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", module, "run", "-w", str(CHECKOUT / "workspace.yaml")]
    with (settings.home.logs / "daemon.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=CHECKOUT, env=child_environment(settings), stdout=log, stderr=log)
    try:
        yield process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
