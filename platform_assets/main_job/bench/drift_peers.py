"""Detectors that others ship, each in an environment of its own (`tests/bench/make_peers.py`), on the very windows that ours reads."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet as pq

from platform_assets.errors import FalajError
from platform_assets.main_job.bench.core import Row, describe_row, measured
from platform_assets.main_job.bench.drift import read_stream
from platform_assets.main_job.bench.drift_injected import KINDS, as_table, inject, lay_bed, size_of
from platform_assets.main_job.bench.serving_peers import PEERS_FOLDER
from resources.settings import CHECKOUT

if TYPE_CHECKING:
    from rich.console import Console

PEERS = {
    "evidently": "Evidently, data drift preset",
    "nannyml": "NannyML, univariate, defaults",
    "river": "river, ADWIN on each number",
    "whylogs": "whylogs, default scores",
}
_PROGRAMS = CHECKOUT / "tests" / "bench" / "peers"
_CLEAN, _EACH = 20, 5
_PATIENCE_SECONDS = 1200


def measure_report(folder: Path, *, console: Console) -> float | None:
    """Return CPU seconds of Evidently's default report on `tenth.parquet`; None, and said why, where it does not run."""
    found = _try("evidently", folder, ["report"], console=console)
    return None if found is None else float(found["cpu_seconds"])


def measure_windows(folder: Path, *, console: Console) -> list[Row]:
    """Give ours and every peer the same windows, with and without a drift; one that is not installed is named with the reason."""
    names = _write_windows(folder / "windows")
    rows = []
    flags, seconds = _ours(folder / "windows", names)
    rows += _describe("ours", flags, seconds)
    for peer, title in PEERS.items():
        found = _try(peer, folder / "windows", ["windows", *names], console=console)
        if found is None:
            continue
        rows += _describe(f"{title} {found['version']}", found["flags"], found["cpu_seconds"])
    return rows


def _write_windows(folder: Path) -> list[str]:
    """Write a reference of ten windows and windows of shuffled bookings, without a drift and with one that costs two points."""
    folder.mkdir()
    stream = read_stream("hotel_bookings")
    bed = lay_bed(stream, seed=1)
    past = stream.values[np.random.default_rng(1).permutation(len(stream.values))][:20_000]
    pq.write_table(as_table(stream, past), folder / "reference.parquet")
    names = []
    for place in range(_CLEAN):
        names.append(f"no drift-{place}")
        pq.write_table(as_table(stream, bed.rows(place)[0]), folder / f"{names[-1]}.parquet")
    for kind in KINDS:
        size, _ = size_of(bed, kind)
        for place in range(_EACH):
            values, _ = inject(bed, kind, size, *bed.rows(_CLEAN + place), seed=place)
            names.append(f"{kind}-{place}")
            pq.write_table(as_table(stream, values), folder / f"{names[-1]}.parquet")
    return names


def _ours(folder: Path, names: list[str]) -> tuple[dict[str, bool], float]:
    """Answer from the same files as the peers, without labels, answers or importance, as they do."""
    from platform_assets.main_job.bench.drift_injected import schema_of
    from platform_assets.specs.model import MonitoringSpec
    from platform_assets.stages.monitoring.drift import Window, report_window
    from platform_assets.stages.monitoring.reference import build_reference

    schema, spec = schema_of(read_stream("hotel_bookings")), MonitoringSpec()
    with measured() as spent:
        reference = build_reference(pq.read_table(folder / "reference.parquet"), schema=schema, probabilities=None, spec=spec)
        flags = {
            name: report_window(
                reference, pq.read_table(folder / f"{name}.parquet"), window=Window(0, 0, 0, ("bench",)), schema=schema,
                probabilities=None, importance=None, spec=spec,
            ).drifted
            for name in names
        }  # fmt: skip
    return flags, spent.cpu_seconds


def _describe(title: str, flags: dict[str, bool], seconds: float) -> list[Row]:
    kinds = ("no drift", *KINDS)
    shares = {kind: [flag for name, flag in flags.items() if name.rsplit("-", 1)[0] == kind] for kind in kinds}
    rows = [
        describe_row(f"{title}: flagged, {kind}, {len(found)} windows", value=float(np.mean(found)), unit="share")
        for kind, found in shares.items()
    ]
    return [*rows, describe_row(f"{title}: CPU a window", value=round(seconds / len(flags), 3), unit="s")]


def _python(peer: str) -> Path:
    return PEERS_FOLDER / peer / "bin" / "python"


def _try(peer: str, folder: Path, arguments: list[str], *, console: Console) -> Any:
    """Return a peer's answer; None where it is not installed or fails, with the reason on the console."""
    if not _python(peer).exists():
        place = PEERS_FOLDER / peer / "failed"
        console.print(f"left out: {PEERS[peer]}: {place.read_text() if place.exists() else 'tests/bench/make_peers.py was not run'}")
        return None
    try:
        return _ask(peer, folder, arguments)
    except (FalajError, subprocess.TimeoutExpired) as error:
        console.print(f"left out: {PEERS[peer]}: {error}")
        return None


def _ask(peer: str, folder: Path, arguments: list[str]) -> Any:
    """Run a peer's program on a folder; its last line is JSON."""
    environment = {"PATH": os.defpath, "HOME": str(folder), "OMP_NUM_THREADS": "1", "DO_NOT_TRACK": "1", "WHYLOGS_NO_ANALYTICS": "True"}
    done = subprocess.run(
        [_python(peer), _PROGRAMS / f"{peer}_drift.py", folder, *arguments],
        capture_output=True, text=True, check=False, timeout=_PATIENCE_SECONDS, env=environment,
    )  # fmt: skip
    if done.returncode != 0:
        raise FalajError(f"bench drift: {peer} ended with {done.returncode}: {(done.stderr.strip().splitlines() or ['nothing said'])[-1]}")
    return json.loads(done.stdout.strip().splitlines()[-1])
