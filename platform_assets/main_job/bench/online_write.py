"""Area `orchestration`: bringing the online values of a million entities up to a table, in a SQLite file and in a Redis.

As a program, `... online_write ROWS FOLDER sqlite|redis`, it is one such measurement: a first write, then one in which a tenth of the
entities changed. What a Redis of its own spends counts with what the writer spends.
"""

from __future__ import annotations

import json
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from platform_assets.main_job.bench.core import Row, describe_row, judge_row, measured, run_contestant

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import pyarrow as pa
    from rich.console import Console

    from platform_assets.specs.records import FeatureKind, ViewTable
    from platform_assets.stages.serving.online_redis import RedisPlace

ROWS, QUICK_ROWS = 1_000_000, 50_000
NUMBERS, CATEGORIES = 8, 2
_CHANGED = 10  # one entity in so many
_STARTS_SECONDS = 20.0
_SERVER = "redis-server"


def measure(*, quick: bool, console: Console) -> list[Row]:
    """Return seconds of a first write and of a tenth's change, for each of the two places; a Redis that is not installed is told."""
    rows = QUICK_ROWS if quick else ROWS
    found = _measure_one("SQLite", rows=rows, console=console)
    if shutil.which(_SERVER) is None:
        console.print(f"orchestration, online values in Redis: left out, there is no {_SERVER} on this machine")
        return found
    return found + _measure_one("Redis", rows=rows, console=console)


def _measure_one(place: str, *, rows: int, console: Console) -> list[Row]:
    console.print(f"orchestration, online values of {rows:,} entities in {place} ...")
    with tempfile.TemporaryDirectory() as folder:
        found = run_contestant("platform_assets.main_job.bench.online_write", [str(rows), folder, place.lower()])
    what = f"online values of {rows:,} entities, {NUMBERS + CATEGORIES} features, {place}"
    return [
        judge_row(f"{what}, CPU", value=found["cpu_seconds"], unit="s", must=60, aim=15, better="lower"),
        judge_row(f"{what}, wall", value=found["wall_seconds"], unit="s", must=60, aim=15, better="lower"),
        describe_row(f"the same in {place}, a tenth of them changed, CPU", value=found["changed_cpu_seconds"], unit="s"),
        describe_row(f"peak memory of the process that writes into {place}", value=found["peak_bytes"] / 2**20, unit="MiB"),
    ]


def write(rows: int, folder: Path, place: str) -> dict[str, float]:
    """Write, and write again; imports are not counted."""
    from resources.feast_store.bulk import SqliteValues
    from resources.feast_store.redis_values import RedisValues

    first, second = _draw(rows, version=1), _draw(rows // _CHANGED, version=2)
    with _running(place, folder) as (address, spent_there):
        values = SqliteValues(folder / "online.sqlite") if address is None else RedisValues(address)
        values.pin("guests")  # connects
        began = spent_there()
        with measured() as whole:
            written = values.write_view(_view(1), first)
        between = spent_there()
        with measured() as part:
            changed = values.write_view(_view(2), second)
        ended = spent_there()
    if (written, changed) != (rows, rows // _CHANGED):
        raise RuntimeError(f"{written} and {changed} entities were written of {rows} and {rows // _CHANGED}")
    return {
        "cpu_seconds": whole.cpu_seconds + between - began, "wall_seconds": whole.wall_seconds,
        "changed_cpu_seconds": part.cpu_seconds + ended - between,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }  # fmt: skip


@contextmanager
def _running(place: str, folder: Path) -> Iterator[tuple[RedisPlace | None, Callable[[], float]]]:
    """Run what a place needs: nothing, or a Redis as a team has it, every write in its append-only file. Yields its CPU seconds, too."""
    if place == "sqlite":
        yield None, lambda: 0.0
        return
    import psutil

    from platform_assets.stages.serving.online_redis import RedisPlace

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [_SERVER, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", "", "--appendonly", "yes"]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        until = time.monotonic() + _STARTS_SECONDS
        while True:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except OSError:
                if time.monotonic() > until or server.poll() is not None:
                    raise
                time.sleep(0.02)
        process = psutil.Process(server.pid)
        yield RedisPlace(f"redis://127.0.0.1:{port}/0"), lambda: sum(process.cpu_times()[:2])
    finally:
        server.terminate()
        server.wait(_STARTS_SECONDS)


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
    sys.stdout.write(json.dumps(write(int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])) + "\n")
