"""The areas of the suite, and one run of an area."""

from __future__ import annotations

from datetime import UTC, datetime
from importlib import import_module
from typing import TYPE_CHECKING, Any

from platform_assets.errors import FalajError
from platform_assets.main_job.bench.core import describe_machine

if TYPE_CHECKING:
    from rich.console import Console

AREAS = {  # modules of this room, by area
    "drift": ("drift", "drift_feed", "drift_unlearnt", "drift_alarms", "drift_injected", "drift_estimate", "drift_scale"),
    "pipeline": ("pipeline",),
    "training": ("trainer", "feast_join"),
    "rollout": ("rollout",),
    "serving": ("serving", "serving_life", "batch_scoring"),
    "compression": ("compression",),
    "governance": ("governance",),
    "orchestration": ("orchestration", "step_overhead", "monitoring_runs", "online_write", "train_register"),
    "soak": ("soak",),
    "faults": ("faults",),
}


def run_area(area: str, *, part: str | None = None, quick: bool, console: Console) -> dict[str, Any]:
    """Run one area of the benchmark suite, or one of its modules (`part`); rows that fall short are returned too."""
    if area not in AREAS:
        raise FalajError(f"bench {area!r}: there is no such area; this version has: {', '.join(AREAS)}.")
    if part is not None and part not in AREAS[area]:
        raise FalajError(f"bench {area} --part {part!r}: there is no such part; this area has: {', '.join(AREAS[area])}.")
    rows = []
    for name in AREAS[area] if part is None else (part,):
        rows += import_module(f"platform_assets.main_job.bench.{name}").measure(quick=quick, console=console)
    command = f"falaj bench {area}{f' --part {part}' if part else ''}{' --quick' if quick else ''}"
    return {"area": area, "date": f"{datetime.now(tz=UTC):%Y-%m-%d}", "machine": describe_machine(), "command": command, "rows": rows}
