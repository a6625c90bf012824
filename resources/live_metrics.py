"""Gauges as files for node_exporter's textfile collector. What the figures are called is decided in stages.telemetry.exposition."""

from __future__ import annotations

import logging
import os
import tempfile
import time
from pathlib import Path

_LOG = logging.getLogger("falaj.metrics")
RETENTION_SECONDS = 900.0  # a file nobody renewed for so long belongs to a run that was killed


class TextfileMetrics:
    """One `<name>.prom` a training in one folder, replaced by a rename, so that the collector never reads half of one."""

    def __init__(self, folder: Path, *, retention_seconds: float = RETENTION_SECONDS) -> None:
        self._folder, self._retention = folder, retention_seconds

    def show(self, name: str, text: str) -> None:
        """Put the file in place; files that others left behind go once their retention is over."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self.sweep()
            handle, beside = tempfile.mkstemp(dir=self._folder, prefix=f".{name}.")
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
            Path(beside).chmod(0o644)  # the collector runs as a user of its own
            Path(beside).replace(self._path(name))
        except OSError as error:  # a full disk costs a gauge, not the training that it shows
            _LOG.warning("the gauges of %s were not written: %s", name, error)

    def withdraw(self, name: str) -> None:
        """Remove the file, if it is there."""
        self._path(name).unlink(missing_ok=True)

    def sweep(self) -> None:
        """Remove what was not renewed within the retention, half-written files too."""
        limit = time.time() - self._retention
        for path in self._folder.glob("*"):
            try:
                old = path.stat().st_mtime < limit
            except FileNotFoundError:  # another sweeps beside us
                continue
            if old and path.name.startswith((".falaj_", "falaj_")):
                path.unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.prom"
