"""Area `drift`: a full check of a million rows of a hundred columns, beside Evidently's report on a tenth of them.

As a program, `python -m platform_assets.main_job.bench.drift_scale FOLDER`, it is the check alone, for its own memory and CPU.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from platform_assets.main_job.bench.core import Row, describe_row, judge_row, run_contestant
from platform_assets.specs.model import MonitoringSpec
from platform_assets.specs.record_json import read_record, to_json
from platform_assets.specs.records import Feature, FeatureSchema
from platform_assets.stages.monitoring.drift import Window, report_sketch
from platform_assets.stages.monitoring.reference import Reference, build_reference
from platform_assets.stages.monitoring.signals import take_signals
from platform_assets.stages.monitoring.sketch import merge_sketches, sketch_signals

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console

NUMBERS, CATEGORIES = 80, 20
_ROWS, _QUICK_ROWS, _BATCH = 1_000_000, 100_000, 32_768
_MISSING = 0.1
_MOVED = 3  # columns that drift, so that the check has something to say
_MUST_MIB, _MUST_TIMES = 600.0, 10.0


def measure(*, quick: bool, console: Console) -> list[Row]:
    """Return CPU and memory of the check, and the peers' where they are installed."""
    from platform_assets.main_job.bench import drift_peers

    rows = _QUICK_ROWS if quick else _ROWS
    console.print(f"checking {rows:,} rows of {NUMBERS + CATEGORIES} columns")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_tables(folder, rows=rows)
        found = run_contestant("platform_assets.main_job.bench.drift_scale", [str(folder)])
        what = f"full check, {rows:,} rows x {NUMBERS + CATEGORIES} columns"
        told = [
            judge_row(f"{what}, peak memory", value=round(found["peak_mib"]), unit="MiB", must=_MUST_MIB, better="lower"),
            describe_row(f"{what}, CPU", value=round(found["cpu_seconds"], 2), unit="s"),
            describe_row(f"{what}, stored reference", value=round(found["reference_kib"]), unit="KiB"),
            describe_row(f"{what}, drifted columns found of {_MOVED}", value=found["found"], unit="columns"),
        ]
        if quick:
            return told
        peers = drift_peers.measure_report(folder, console=console)
        if peers is not None:
            times = round(peers / found["cpu_seconds"], 1)
            told.append(describe_row("Evidently's default report on a tenth of these rows, CPU", value=round(peers, 1), unit="s"))
            told.append(judge_row("the same over ours", value=times, unit="times", must=_MUST_TIMES, better="higher", against="Evidently"))
        console.print("the same windows for the peers")
        return [*told, *drift_peers.measure_windows(folder, console=console)]


def write_tables(folder: Path, *, rows: int) -> None:
    """Write reference (a tenth of the rows), its summary, the rows to be checked, and a tenth of these."""
    rng = np.random.default_rng(7)
    reference = _draw(rows // 10, rng, moved=0)
    pq.write_table(reference, folder / "reference.parquet")
    stored = build_reference(reference, schema=schema(), probabilities=None, spec=MonitoringSpec())
    (folder / "reference.json").write_text(to_json(stored))
    with pq.ParquetWriter(folder / "current.parquet", reference.schema) as writer:
        for part in range(10):
            table = _draw(rows // 10, rng, moved=_MOVED)
            writer.write_table(table)
            if part == 0:
                pq.write_table(table, folder / "tenth.parquet")


def schema() -> FeatureSchema:
    """Return the columns as a model's features."""
    numbers = tuple(Feature(f"n{place}", "numeric", "", "") for place in range(NUMBERS))
    words = tuple(Feature(f"c{place}", "category", "", "") for place in range(CATEGORIES))
    return FeatureSchema((*numbers, *words), "", (), "", "")


def check(folder: Path) -> dict[str, float]:
    """Stream the rows in batches through the check; CPU without what the imports cost."""
    started = time.process_time()
    text = (folder / "reference.json").read_bytes()
    reference = read_record(Reference, text)
    spec = MonitoringSpec()
    sketch = merge_sketches(
        sketch_signals(take_signals(batch, schema=schema(), probabilities=None), seed=place)
        for place, batch in enumerate(_batches(folder / "current.parquet"))
    )
    window = Window(0, 0, sketch.rows - 1, ("bench",))
    report = report_sketch(reference, sketch, window=window, between=("", ""), importance=None, spec=spec)
    seconds = time.process_time() - started
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    columns = [column for column in report.moved if column.layer == "column"]
    return {
        "cpu_seconds": seconds, "peak_mib": int(peak.split()[1]) / 1024, "reference_kib": len(text) / 1024, "found": float(len(columns)),
    }  # fmt: skip


def _batches(path: Path) -> Iterator[pa.Table]:
    with pq.ParquetFile(path, buffer_size=2**20) as file:  # else the whole of a row group's bytes is held beside its values
        for group in range(file.num_row_groups):
            for batch in file.iter_batches(batch_size=_BATCH, row_groups=[group], use_threads=False):
                yield pa.Table.from_batches([batch])


def _draw(rows: int, rng: np.random.Generator, *, moved: int) -> pa.Table:
    """Half of the numbers smooth, half with a long tail, a tenth missing in every fifth; categories of 5 to 100 values."""
    columns: dict[str, pa.Array] = {}
    common = rng.normal(size=rows)
    for place in range(NUMBERS):
        values = 0.5 * common + rng.normal(size=rows) if place % 2 else rng.lognormal(size=rows)
        values = values + (0.2 if place < moved else 0.0)
        columns[f"n{place}"] = pa.array(values, mask=rng.random(rows) < _MISSING if place % 5 == 0 else None)
    for place in range(CATEGORIES):
        words = np.array([f"v{word}" for word in range(5 * (place + 1))], dtype=object)
        columns[f"c{place}"] = pa.array(words[(rng.random(rows) ** 2 * len(words)).astype(int)], pa.string())
    return pa.table(columns)


if __name__ == "__main__":
    sys.stdout.write(json.dumps(check(Path(sys.argv[1]))) + "\n")
