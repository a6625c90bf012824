"""Fake of the experiment log and model registry, in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from platform_assets.errors import StateError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from platform_assets.specs.telemetry import Point


class MemoryRegistry:
    """Runs in a dictionary; versions are 1, 2, 3 a model."""

    def __init__(self) -> None:
        self.runs: dict[str, dict[str, Any]] = {}
        self._versions: dict[str, list[str]] = {}
        self._aliases: dict[tuple[str, str], str] = {}

    def start_training(self, model: str, tags: Mapping[str, str]) -> str:
        """Open a run; return its id."""
        run_id = f"run-{len(self.runs) + 1}"
        self.runs[run_id] = {"model": model, "tags": dict(tags), "live": [], "status": "RUNNING"}
        return run_id

    def log_live(self, run_id: str, points: Sequence[Point]) -> None:
        """Keep points of an open run."""
        if run_id in self.runs:
            self.runs[run_id]["live"] += points

    def log_training(
        self,
        model: str,
        params: Mapping[str, Any],
        metrics: Mapping[str, float],
        curve: Sequence[Mapping[str, float]],
        tags: Mapping[str, str],
        *,
        run_id: str | None = None,
    ) -> str:
        """Keep one training; return its run id."""
        run_id = run_id or self.start_training(model, {})
        run = self.runs[run_id]
        run.update(params=dict(params), metrics=dict(metrics), curve=[dict(row) for row in curve], status="FINISHED")
        run["tags"].update(tags)
        return run_id

    def drop_training(self, run_id: str) -> None:
        """Close a run as failed."""
        self.runs[run_id]["status"] = "FAILED"

    def register(self, model: str, bundle: Path, *, run_id: str, tags: Mapping[str, str]) -> str:  # noqa: ARG002  (the port's signature)
        """Return the version of this bundle's digest, a new one when it is new."""
        digest = tags.get("digest", bundle.name)
        versions = self._versions.setdefault(model, [])
        if digest not in versions:
            versions.append(digest)
        return str(versions.index(digest) + 1)

    def set_alias(self, model: str, alias: str, version: str | None) -> None:
        """Point an alias at a version; None removes it."""
        if version is None:
            self._aliases.pop((model, alias), None)
            return
        if not 1 <= int(version) <= len(self._versions.get(model, ())):
            raise StateError(f"version {version} of {model} is not in the registry, so {alias} cannot point at it")
        self._aliases[model, alias] = version

    def alias(self, model: str, alias: str) -> str | None:
        """Return the version an alias points at."""
        return self._aliases.get((model, alias))
