"""`falaj bench`: areas of measurement, each a function that returns rows. This version has the area `pipeline`."""

from __future__ import annotations

import os
import platform
import tempfile
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from platform_assets.errors import FalajError
from resources.settings import Home, Settings, read_settings

_MUST_SECONDS = 360.0
_MUST_BYTES = 4 * 2**30


def run_area(area: str, *, quick: bool, console: Console) -> dict[str, Any]:
    """Run one area of the benchmark suite; rows that fall short are returned too."""
    areas = {"pipeline": measure_pipeline}
    if area not in areas:
        raise FalajError(f"bench {area!r}: there is no such area; this version has: {', '.join(areas)}.")
    rows = areas[area](quick=quick, console=console)
    command = f"falaj bench {area}{' --quick' if quick else ''}"
    return {"area": area, "date": f"{datetime.now(tz=UTC):%Y-%m-%d}", "machine": describe_machine(), "command": command, "rows": rows}


def describe_machine() -> str:
    """Return processor, cores and memory in one line."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor())
    flags = next((set(line.split(":", 1)[1].split()) for line in lines if line.startswith("flags")), set())
    vector = next((label for flag, label in (("avx512_vnni", "AVX-512 VNNI"), ("avx2", "AVX2")) if flag in flags), "no AVX2")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{name} ({vector}), {os.cpu_count()} cores, {memory:.0f} GiB, Python {platform.python_version()}"


def measure_pipeline(*, quick: bool, console: Console) -> list[dict[str, Any]]:
    """Run the main job in a fresh home; return wall and CPU seconds per stage. Quick: digits alone."""
    from platform_assets.main_job.run import run_main_job
    from resources.ledger import SqliteLedger

    with tempfile.TemporaryDirectory() as folder:
        settings: Settings = replace(read_settings(), home=Home(Path(folder) / "home"), serve_port=0)
        result = run_main_job(settings, models=["digits"] if quick else [], sources={}, console=console)
        totals = SqliteLedger(settings.home.state).totals()
    rows = [
        {
            "what": f"{row['model']} {row['stage']}, {unit}",
            "value": round(row[field], 2),
            "unit": "s",
            "against": None,
            "must": None,
            "aim": None,
            "holds": None,
        }
        for row in totals
        for unit, field in (("wall", "wall_seconds"), ("CPU", "cpu_seconds"))
    ]
    whole = [
        ("main job, wall", result["wall_seconds"], "s", _MUST_SECONDS),
        ("main job, peak memory", result["peak_rss_bytes"], "bytes", _MUST_BYTES),
    ]
    rows += [
        {"what": what, "value": value, "unit": unit, "against": None, "must": must, "aim": None, "holds": value <= must}
        for what, value, unit, must in whole
    ]
    return rows
