"""Which loaded version answers which request, and the state file from which a restarted server goes on. No HTTP here."""

from __future__ import annotations

import json
import os
import zlib
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from platform_assets.errors import RequestError, ServingError
from platform_assets.stages.serving.bundle import Bundle
from platform_assets.stages.serving.figures import Comparison, Figures


class NotFoundError(RequestError):
    """No such path, model or version (HTTP 404)."""


MODES = ("live", "shadow", "canary")
_SPARE_BUNDLES = 2  # loaded, but neither live, challenger nor the way back


@dataclass(frozen=True)
class Traffic:
    """Who answers. `previous` is the way back of an instant rollback and stays loaded."""

    live: str | None = None
    challenger: str | None = None
    mode: str = "live"
    percent: int = 0
    previous: str | None = None


@dataclass(eq=False)
class Arm:
    """One version in service, with the figures of this traffic setting."""

    bundle: Bundle
    figures: Figures


@dataclass
class Route:
    """One model: its loaded versions and its traffic."""

    model: str
    loaded: dict[str, Bundle] = field(default_factory=dict)
    traffic: Traffic = Traffic()
    live: Arm | None = None
    challenger: Arm | None = None
    comparison: Comparison = field(default_factory=Comparison)
    fault: str = ""
    traces: dict[str, str] = field(default_factory=dict)  # by digest, where a release was made, in a trace

    def champion(self) -> Arm:
        """Arm that answers by default; ServingError where no version is live."""
        if self.live is None:
            raise ServingError(f"model {self.model} has no live version: {self.fault or 'its first release is still to come'}")
        return self.live

    def of_version(self, version: str | None) -> Arm:
        """Arm of a version in service, or the champion where none is named."""
        if version is None:
            return self.champion()
        served = [arm for arm in (self.live, self.challenger) if arm is not None]
        for arm in served:
            if arm.bundle.version == version:
                return arm
        named = ", ".join(arm.bundle.version for arm in served)
        raise NotFoundError(f"version {version} of {self.model} is not in service; in service are {named or 'none'}")

    def is_ready(self, version: str | None) -> bool:
        """Whether a version, or any, is in service."""
        return any(arm is not None and version in (None, arm.bundle.version) for arm in (self.live, self.challenger))

    def choose(self, key: str) -> Arm:
        """Arm of one request. Sticky: a key stays with its arm while the percent stands, and stays in the canary as it grows."""
        champion = self.live if self.live is not None else self.champion()
        if self.traffic.mode != "canary" or self.challenger is None:
            return champion
        share = zlib.crc32(f"{self.model}\0{key}".encode()) % 10_000
        return self.challenger if share < self.traffic.percent * 100 else champion

    def shadow(self) -> Arm | None:
        """Challenger that is asked beside the champion, off the reply path."""
        return self.challenger if self.traffic.mode == "shadow" else None

    def checked(self, *, live: Any, challenger: Any, mode: Any, percent: Any) -> Traffic:
        """Traffic as asked for, or RequestError naming the field."""
        if mode not in MODES:
            raise RequestError(f"field 'mode': found {mode!r}; right would be one of {', '.join(MODES)}")
        for name, digest in (("live", live), ("challenger", challenger)):
            needed = name == "live" or mode != "live"
            if (digest is not None or needed) and (not isinstance(digest, str) or digest not in self.loaded):
                raise RequestError(
                    f"field {name!r}: {digest!r} is not loaded for {self.model}; loaded are {', '.join(self.loaded) or 'none'}"
                )
        if mode != "live" and challenger == live:
            raise RequestError("field 'challenger': the same version as 'live'; name another one")
        if type(percent) is not int or not 0 <= percent <= 100:  # noqa: PLR2004 - percent
            raise RequestError(f"field 'percent': found {percent!r}; right would be a whole number from 0 to 100")
        before = self.traffic.previous if live == self.traffic.live else self.traffic.live
        return Traffic(
            live=live,
            challenger=challenger if mode != "live" else None,
            mode=mode,
            percent=percent if mode == "canary" else 0,
            previous=before,
        )

    def apply(self, traffic: Traffic) -> None:
        """Switch at once, with fresh figures; requests under way are answered by the version they were given to."""
        self.traffic, self.fault = traffic, ""
        self.live = self._arm(traffic.live)
        self.challenger = self._arm(traffic.challenger)
        self.comparison = Comparison()
        self.unload_spare()

    def unload_spare(self) -> None:
        """Keep what is in service, the way back, and the newest few others."""
        kept = {self.traffic.live, self.traffic.challenger, self.traffic.previous}
        spare = [digest for digest in self.loaded if digest not in kept]
        for digest in spare[:-_SPARE_BUNDLES]:
            del self.loaded[digest]

    def _arm(self, digest: str | None) -> Arm | None:
        if digest is None or digest not in self.loaded:
            return None
        bundle = self.loaded[digest]
        return Arm(bundle, Figures(bundle.version))

    def status(self) -> dict[str, Any]:
        """Plain JSON of where traffic goes and what was measured."""
        traffic, comparison = self.traffic, self.comparison
        arms = {arm.bundle.digest: asdict(arm.figures.record()) for arm in (self.live, self.challenger) if arm is not None}
        return {
            "model": self.model,
            "live": traffic.live,
            "challenger": traffic.challenger,
            "mode": traffic.mode,
            "percent": traffic.percent,
            "previous": traffic.previous,
            "loaded": list(self.loaded),
            "arms": arms,
            "compared_rows": comparison.compared_rows,
            "disagreements": comparison.disagreements,
            "skipped_requests": comparison.skipped_requests,
            "fault": self.fault,
        }

    def saved(self, traffic: Traffic) -> dict[str, Any]:
        """As the state file keeps it."""
        traces = {digest: where for digest, where in self.traces.items() if digest in self.loaded}
        return {
            "traffic": vars(traffic), "loaded": {digest: str(bundle.path) for digest, bundle in self.loaded.items()}, "traces": traces,
        }  # fmt: skip


def write_state(file: Path, models: dict[str, Any]) -> None:
    """Replace the state file in one step; after a crash it is the old one or the new one."""
    beside = file.with_suffix(".tmp")
    try:
        with beside.open("w") as stream:
            json.dump({"models": models}, stream, indent=1)
            stream.flush()
            os.fsync(stream.fileno())
        beside.replace(file)
    except OSError as error:
        raise ServingError(f"{file} cannot be written ({error.strerror}); traffic was not changed") from error


def read_state(file: Path) -> dict[str, Any]:
    """Saved models, or nothing where the server never ran here."""
    try:
        return dict(json.loads(file.read_bytes())["models"])
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ServingError(f"{file} is not a state file of this server ({error}); move it away to start empty") from error
