"""Area `orchestration`: how many models one daemon can judge in a minute, each by a monitoring run of its own over one new window."""

from __future__ import annotations

import tempfile
from typing import TYPE_CHECKING

from platform_assets.main_job.bench.core import Row, describe_row, judge_row, run_contestant
from platform_assets.main_job.bench.evaluate_models import CATEGORIES, NUMBERS, WINDOW_ROWS
from resources.machine import look_at_machine

if TYPE_CHECKING:
    from rich.console import Console

MODELS = 200
_RUNS, _MINUTE = 8, 60.0


def measure(*, quick: bool, console: Console) -> list[Row]:
    """Return CPU seconds of a monitoring run among 200 declared models, and what the cores of this machine make of it."""
    models, runs = (20, 2) if quick else (MODELS, _RUNS)
    console.print(f"orchestration, monitoring runs among {models} models ...")
    with tempfile.TemporaryDirectory() as folder:
        found = run_contestant("platform_assets.main_job.bench.evaluate_models", [folder, str(models), str(runs)])
    cores = len(look_at_machine().cores)
    held = cores * _MINUTE / found["kept_cpu_seconds"]
    window = f"a window of {WINDOW_ROWS} rows, {NUMBERS + CATEGORIES} features"
    return [
        describe_row(f"a monitoring run among {models} models, {window}, CPU", value=found["kept_cpu_seconds"], unit="s"),
        describe_row("the same where each run loads the declarations, CPU", value=found["anew_cpu_seconds"], unit="s"),
        judge_row(f"models judged once a minute, by the CPU of {cores} cores", value=held, unit="models", must=MODELS, better="higher"),
    ]
