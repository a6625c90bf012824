"""Area `orchestration`: bringing the online values of a million entities up to a table.

As a program, `... online_write ROWS FOLDER`, it is one such measurement: a first write, then one in which a tenth of the entities changed.
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from platform_assets.main_job.bench.core import Row, describe_row, judge_row, measured, run_contestant

if TYPE_CHECKING:
    import pyarrow as pa
    from rich.console import Console

    from platform_assets.specs.records import FeatureKind, ViewTable

ROWS, QUICK_ROWS = 1_000_000, 50_000
NUMBERS, CATEGORIES = 8, 2
_CHANGED = 10  # one entity in so many


def measure(*, quick: bool, console: Console) -> list[Row]:
    """Return seconds of a first write and of a tenth's change."""
    rows = QUICK_ROWS if quick else ROWS
    console.print(f"orchestration, online values of {rows:,} entities ...")
    with tempfile.TemporaryDirectory() as folder:
        found = run_contestant("platform_assets.main_job.bench.online_write", [str(rows), folder])
    what = f"online values of {rows:,} entities, {NUMBERS + CATEGORIES} features, SQLite"
    return [
        judge_row(f"{what}, CPU", value=found["cpu_seconds"], unit="s", must=60, aim=15, better="lower"),
        judge_row(f"{what}, wall", value=found["wall_seconds"], unit="s", must=60, aim=15, better="lower"),
        describe_row("the same, a tenth of them changed, CPU", value=found["changed_cpu_seconds"], unit="s"),
        describe_row("peak memory of that process", value=found["peak_bytes"] / 2**20, unit="MiB"),
    ]


def write(rows: int, folder: Path) -> dict[str, float]:
    """Write, and write again; imports are not counted."""
    from resources.feast_store.bulk import write_view

    path = folder / "online.sqlite"
    first, second = _draw(rows, version=1), _draw(rows // _CHANGED, version=2)
    with measured() as whole:
        written = write_view(path, view=_view(1), rows=first)
    with measured() as part:
        changed = write_view(path, view=_view(2), rows=second)
    if (written, changed) != (rows, rows // _CHANGED):
        raise RuntimeError(f"{written} and {changed} entities were written of {rows} and {rows // _CHANGED}")
    return {
        "cpu_seconds": whole.cpu_seconds, "wall_seconds": whole.wall_seconds, "changed_cpu_seconds": part.cpu_seconds,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }  # fmt: skip


def _view(version: int) -> ViewTable:
    from platform_assets.specs.records import TablePin, ViewTable

    kinds: dict[str, FeatureKind] = {
        **{f"n{place}": "numeric" for place in range(NUMBERS)},
        **{f"c{place}": "category" for place in range(CATEGORIES)},
    }
    return ViewTable("guests", "guest", kinds, TablePin("features/guests", version, 0, str(version)), 0)


def _draw(rows: int, *, version: int) -> pa.Table:
    import numpy as np
    import pyarrow as pa

    from platform_assets.stages.features.schema import EVENT_TIMESTAMP

    random = np.random.default_rng(version)
    columns = {
        "guest": pa.array(np.char.add("guest-", random.permutation(rows).astype(str))),
        EVENT_TIMESTAMP: pa.array(np.full(rows, version * 86_400_000_000), pa.timestamp("us")),
    }
    columns |= {f"n{place}": pa.array(random.normal(size=rows)) for place in range(NUMBERS)}
    words = np.array([f"v{place}" for place in range(40)])
    return pa.table(columns | {f"c{place}": pa.array(words[random.integers(0, 40, rows)]) for place in range(CATEGORIES)})


if __name__ == "__main__":
    sys.stdout.write(json.dumps(write(int(sys.argv[1]), Path(sys.argv[2]))) + "\n")
