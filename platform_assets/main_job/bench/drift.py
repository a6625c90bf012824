"""Area `drift`: the default policy replayed over real streams, beside the plain schedule of equal cost in the same run."""

from __future__ import annotations

from statistics import mean
from typing import TYPE_CHECKING, Any

from platform_assets.errors import FalajError
from platform_assets.main_job.bench.core import Row, describe_row, judge_row
from platform_assets.main_job.replay import compare
from platform_assets.specs.model import PayoffSpec
from platform_assets.stages.replay.stream import Stream, open_stream
from resources.file_reader import read_table
from resources.settings import CHECKOUT, read_settings

if TYPE_CHECKING:
    from rich.console import Console

STREAMS = {"hotel_bookings": ("arrival_date", "is_canceled"), "elec2": ("timestamp", "class"), "bike_sharing": ("timestamp", "cnt")}
QUICK = "bike_sharing"
_MUST_GAIN, _AIM_GAIN, _MUST_COST, _AIM_COST, _MUST_ABOVE = 0.90, 0.95, 0.30, 0.25, 0.05


def measure(*, quick: bool, console: Console) -> list[Row]:
    """Replay each stream; judge mean gain and cost, and how far above the plain schedule they are. Quick: the shortest stream alone."""
    found = {}
    for name in STREAMS:
        if quick and name != QUICK:
            continue
        console.print(f"replaying {name}")
        found[name] = compare(read_stream(name), PayoffSpec())
    rows = [row for name, value in found.items() for row in _rows_of(name, value)]
    gain, cost = (mean(value[figure] for value in found.values()) for figure in ("gain", "cost"))
    above = [value["gain"] - value["plain_gain"] for value in found.values()]
    return [
        *rows,
        judge_row("mean gain", value=round(gain, 4), unit="share", must=_MUST_GAIN, aim=_AIM_GAIN, better="higher"),
        judge_row("mean cost", value=round(cost, 4), unit="share", must=_MUST_COST, aim=_AIM_COST, better="lower"),
        judge_row(
            "mean gain above a schedule of equal cost",
            value=round(mean(above), 4), unit="share", must=_MUST_ABOVE, better="higher", against="every-nth",
        ),
        judge_row("the same, worst stream", value=round(min(above), 4), unit="share", must=0.0, better="higher", against="every-nth"),
    ]  # fmt: skip


def read_stream(name: str) -> Stream:
    """Read one of the real streams from the folder that FALAJ_DATA names."""
    path = (read_settings().data or CHECKOUT) / f"{name}.parquet"
    if not path.exists():
        raise FalajError(f"bench drift: there is no {path}; FALAJ_DATA names the folder that holds {', '.join(STREAMS)} as Parquet")
    time, target = STREAMS[name]
    return open_stream(read_table(str(path)), time=time, target=target)


def _rows_of(name: str, value: dict[str, Any]) -> list[Row]:
    return [
        describe_row(f"{name}, gain", value=value["gain"], unit="share", against=value["plain_gain"]),
        *(describe_row(f"{name}, {figure}", value=value[figure], unit=unit) for figure, unit in _TOLD.items()),
    ]


_TOLD = {"cost": "share", "trainings": "trainings", "refreshes": "refreshes", "delay": "windows", "false_alarms": "trainings"}
