"""Area `orchestration`: judging many models once a minute on one daemon, each over one new window, together."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from platform_assets.main_job.bench.core import Row, describe_row, judge_row, run_contestant
from platform_assets.main_job.bench.evaluate_models import CATEGORIES, NUMBERS, WINDOW_ROWS
from platform_assets.stages.monitoring.turns import MOST
from resources.machine import look_at_machine

if TYPE_CHECKING:
    from rich.console import Console

MODELS = 200
_MINUTE = 60.0


def measure(*, quick: bool, console: Console) -> list[Row]:
    """Return CPU seconds of judging a model among 200 declared ones, and one turn of all of them through the real daemon."""
    models, share = (20, 5) if quick else (MODELS, MOST)
    console.print(f"orchestration, monitoring runs among {models} models ...")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        found = run_contestant("platform_assets.main_job.bench.evaluate_models", [str(folder / "runs"), str(models), str(share)])
        console.print(f"orchestration, one turn of {models} models through the daemon ...")
        turn = run_contestant("platform_assets.main_job.bench.judge_turn", [str(folder / "turn"), str(models)])
    cores = len(look_at_machine().cores)
    window = f"a window of {WINDOW_ROWS} rows, {NUMBERS + CATEGORIES} features"
    return [
        describe_row(f"a monitoring run among {models} models, {window}, CPU", value=found["kept_cpu_seconds"], unit="s"),
        describe_row("the same where each run loads the declarations, CPU", value=found["anew_cpu_seconds"], unit="s"),
        describe_row(f"the same a model, {share} in one run, CPU", value=found["shared_cpu_seconds"], unit="s"),
        describe_row(f"one turn of {models} models, daemon, sensors and runs, CPU", value=turn["cpu_seconds"], unit="s"),
        judge_row(
            f"one turn of {models} models, from the sensor's word to the last verdict, {cores} cores", value=turn["wall_seconds"], unit="s",
            must=_MINUTE, better="lower",
        ),
    ]  # fmt: skip
