"""What certificates between services cost: the real server asked by the platform's own client, with FALAJ_MTLS and without, by turns."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from platform_assets.main_job.bench.core import describe_row
from platform_assets.main_job.bench.serving_setup import MODEL, NAMES, Falaj, running_falaj, values
from resources.certificates import LOCAL, OFF, ensure
from resources.serving import connect

if TYPE_CHECKING:
    from platform_assets.main_job.bench.core import Row


def measure_services(*, quick: bool) -> list[Row]:
    """CPU time of server and client together: a prediction over a kept connection, an admin question over a new one."""
    turns, kept, fresh = (4, 250, 50) if quick else (20, 400, 50)
    rows = [dict(zip(NAMES, map(float, row), strict=True)) for row in values(1, 1)]
    with (
        tempfile.TemporaryDirectory() as name,
        running_falaj(Path(name) / OFF) as open_one,
        running_falaj(Path(name) / LOCAL, mtls=LOCAL) as known,
    ):
        keys = known.settings.home.keys
        begun = time.process_time()
        for _ in range(fresh):
            ensure(keys)
        looked = (time.process_time() - begun) / fresh
        with connect(open_one.settings) as plain, connect(known.settings) as safe:
            predict = _by_turns(
                turns, (open_one, lambda: plain.predict(MODEL, rows), kept), (known, lambda: safe.predict(MODEL, rows), kept)
            )
        ask = _by_turns(
            turns, (open_one, lambda: open_one.target.status(MODEL), fresh), (known, lambda: known.target.status(MODEL), fresh)
        )  # fmt: skip
    return [
        describe_row(
            "certificates: a prediction over a kept connection (against: none)", value=predict[1], against=predict[0], unit="µs CPU"
        ),
        describe_row("certificates: an admin question over a new connection (against: none)", value=ask[1], against=ask[0], unit="µs CPU"),
        describe_row("certificates: of that, looking whether any is due", value=1e6 * looked, unit="µs CPU"),
    ]


def _by_turns(turns: int, *asked: tuple[Falaj, Callable[[], object], int]) -> list[float]:
    """Return microseconds of CPU a request of each, server and client, over all turns: the kernel counts hundredths of a second."""
    spent = [0.0] * len(asked)
    for _, ask, _ in asked:
        ask()
    for _ in range(turns):
        for at, (server, ask, count) in enumerate(asked):
            before = server.cpu_seconds() + time.process_time()
            for _ in range(count):
                ask()
            spent[at] += server.cpu_seconds() + time.process_time() - before
    return [1e6 * one / (turns * count) for one, (_, _, count) in zip(spent, asked, strict=True)]
