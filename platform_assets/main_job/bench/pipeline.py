"""Area `pipeline`: the whole main job in a fresh home, stage by stage."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from platform_assets.main_job.bench.core import Row, describe_row, judge_row
from resources.settings import Home, Settings, read_settings

if TYPE_CHECKING:
    from rich.console import Console

_MUST_SECONDS = 360.0
_MUST_BYTES = 4 * 2**30


def measure(*, quick: bool, console: Console) -> list[Row]:
    """Run the main job in a fresh home; return wall and CPU seconds per stage. Quick: digits alone."""
    from platform_assets.main_job.run import run_main_job
    from resources.ledger import SqliteLedger

    with tempfile.TemporaryDirectory() as folder:
        settings: Settings = replace(read_settings(), home=Home(Path(folder) / "home"), serve_port=0)
        result = run_main_job(settings, models=["digits"] if quick else [], sources={}, console=console)
        totals = SqliteLedger(settings.home.state).totals()
    stages = [
        describe_row(f"{row['model']} {row['stage']}, {unit}", value=round(row[name], 2), unit="s")
        for row in totals
        for unit, name in (("wall", "wall_seconds"), ("CPU", "cpu_seconds"))
    ]
    return [
        *stages,
        judge_row("main job, wall", value=result["wall_seconds"], unit="s", must=_MUST_SECONDS, better="lower"),
        judge_row("main job, peak memory", value=result["peak_rss_bytes"], unit="bytes", must=_MUST_BYTES, better="lower"),
    ]
