"""Who serves: this process alone, or several workers under a supervisor. What the admin routes need of either."""

from __future__ import annotations

import asyncio
import ctypes
import resource
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from platform_assets.errors import ServingError
from platform_assets.manifests import VERSION_DIGITS
from platform_assets.stages.serving.bundle import Bundle, load_bundle
from platform_assets.stages.serving.figures import Comparison, Figures, Histogram
from platform_assets.stages.serving.traffic import Route, Traffic

if TYPE_CHECKING:
    from platform_assets.sealing.release import Opener
    from platform_assets.stages.serving.app import App


class Loaded(Protocol):
    """A release in service, held here or by the workers."""

    digest: str
    path: Path

    @property
    def version(self) -> str:
        """First twelve digits of the digest."""


@dataclass(frozen=True, eq=False)
class Stored:
    """A release that the workers hold: its bytes, sealed."""

    digest: str
    path: Path
    file: int
    size_bytes: int

    @property
    def version(self) -> str:
        """First twelve digits of the digest, as releases are named."""
        return self.digest[:VERSION_DIGITS]


class Fleet(Protocol):
    """The processes that answer."""

    async def load(self, path: Path, *, model: str, digest: str, champion: Any) -> Any:
        """Verify a release, check its answers and have every process hold it."""

    async def apply(self, model: str, traffic: Traffic) -> None:
        """Have every process answer by this traffic."""

    async def rotate(self, model: str) -> list[str]:
        """Close the segments of a model's log; return all closed ones."""

    async def refresh(self, routes: Mapping[str, Route]) -> dict[str, Any]:
        """Bring the routes' figures up to date; return the server's facts."""


class Alone:
    """This process, which holds the releases and the routes itself."""

    def __init__(self, app: App, *, opener: Opener | None) -> None:
        self._app, self._opener = app, opener

    async def load(self, path: Path, *, model: str, digest: str, champion: Bundle | None) -> Bundle:
        """Load in a thread: requests go on meanwhile."""
        if champion is not None and champion.session is None:  # unloaded: there is nothing to hold its time against
            champion = None
        bundle = await asyncio.to_thread(load_bundle, path, model=model, digest=digest, opener=self._opener, champion=champion)
        self._app.memory.add(bundle)
        return bundle

    async def apply(self, model: str, traffic: Traffic) -> None:
        """The admin's routes are the ones that answer already; memory that the swap set free goes back."""
        del model, traffic
        await asyncio.to_thread(give_back_memory)

    async def rotate(self, model: str) -> list[str]:
        """Close the log's segment."""
        return await rotate_log(self._app, model)

    async def refresh(self, routes: Mapping[str, Route]) -> dict[str, Any]:
        """Return this process's facts; the figures are its own."""
        del routes
        return self._app.facts()


async def rotate_log(app: App, model: str) -> list[str]:
    """Close this process's segment of a model's log; return all closed ones."""
    try:
        segments = await asyncio.wrap_future(app.log.rotate(model))
    except OSError as error:
        raise ServingError(f"the prediction log of {model} could not be closed: {error.strerror}") from error
    return [str(segment) for segment in segments]


def export_figures(routes: Mapping[str, Route]) -> dict[str, Any]:
    """Return figures of this process's routes as JSON, to be merged by `merge_figures`."""
    return {
        name: {
            "arms": {arm.bundle.digest: _plain(arm.figures) for arm in (route.live, route.challenger) if arm is not None},
            "comparison": vars(route.comparison),
        }
        for name, route in routes.items()
    }


def _plain(figures: Figures) -> dict[str, Any]:
    return {**vars(figures), "latency": vars(figures.latency), "paces": [vars(pace) for pace in figures.paces]}


def merge_figures(routes: Mapping[str, Route], exports: Iterable[Mapping[str, Any]]) -> None:
    """Set the routes' figures to the sum of what the workers counted."""
    found = list(exports)
    for name, route in routes.items():
        parts = [export[name] for export in found if name in export]
        for arm in (route.live, route.challenger):
            if arm is not None:
                arm.figures = _sum_figures(arm.bundle.version, [part["arms"].get(arm.bundle.digest) for part in parts])
        route.comparison = Comparison(**{key: sum(part["comparison"][key] for part in parts) for key in vars(Comparison())})


def _sum_figures(version: str, parts: list[Any]) -> Figures:
    total = Figures(version)
    for part in parts:
        if part is not None:
            total.requests += part["requests"]
            total.rows += part["rows"]
            total.errors += part["errors"]
            for pace, counted in zip(total.paces, part["paces"], strict=True):
                pace.runs += counted["runs"]
                pace.rows += counted["rows"]
                pace.cpu_seconds += counted["cpu_seconds"]
                pace.latency_counts = [a + b for a, b in zip(pace.latency_counts, counted["latency_counts"], strict=True)]
            counts = [a + b for a, b in zip(total.latency.counts, part["latency"]["counts"], strict=True)]
            total.latency = Histogram(counts, total.latency.total + part["latency"]["total"])
    return total


_NOT_SUMMED = frozenset({"ready", "replies", "uptime_seconds", "log_fault"})


def merge_facts(parts: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Sum the facts of workers; the oldest uptime, ready where all are."""
    found = list(parts)
    merged: dict[str, Any] = {key: sum(part[key] for part in found) for key in found[0] if key not in _NOT_SUMMED} if found else {}
    replies: dict[str, int] = {}
    for part in found:
        for status, number in part["replies"].items():
            replies[status] = replies.get(status, 0) + number
    return {
        **merged,
        "uptime_seconds": max((part["uptime_seconds"] for part in found), default=0.0),
        "ready": bool(found) and all(part["ready"] for part in found),
        "replies": replies,
        "log_fault": next((part["log_fault"] for part in found if part["log_fault"]), ""),
    }


def give_back_memory() -> None:
    """Have the allocator return free pages; without it what a swap set free stays, here and there, in the heap. Only glibc knows how."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def process_facts() -> dict[str, float]:
    """CPU and memory of this process."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return {"cpu_seconds": usage.ru_utime + usage.ru_stime, "peak_resident_bytes": usage.ru_maxrss * 1024}
