"""Progress of a running program: always a line of progress.jsonl, and live to Dagster where Dagster started it through Pipes.

The one module that knows `dagster_pipes`; it is used where it is installed and nothing else changes where it is not.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol


class Report(Protocol):
    """Where a program says how far it is."""

    def step(self, name: str, **figures: float | str) -> None:
        """Say that one step (an epoch, a candidate) is done, with its figures."""


class Progress:
    """Appends to progress.jsonl and, under Pipes, to the run's event log."""

    def __init__(self, path: Path, pipes: Any | None) -> None:
        self._path = path
        self._pipes = pipes
        self._start = time.monotonic()

    def step(self, name: str, **figures: float | str) -> None:
        """Write one line; a line cut short by a kill is the last one, and readers skip it."""
        line = {"step": name, "seconds": round(time.monotonic() - self._start, 3), **figures}
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        if self._pipes is not None:
            shown = ", ".join(f"{key} {value:.4f}" if isinstance(value, float) else f"{key} {value}" for key, value in figures.items())
            self._pipes.log.info("%s: %s", name, shown)

    def materialised(self, metadata: Mapping[str, Any]) -> None:
        """Tell Dagster the result's figures, when it is there to hear them."""
        if self._pipes is not None:
            self._pipes.report_custom_message({"result": dict(metadata)})


@contextmanager
def open_progress(out: Path) -> Iterator[Progress]:
    """Open progress for a program that writes into `out`; Pipes is opened when Dagster started this process."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / "progress.jsonl"
    try:
        import dagster_pipes
    except ModuleNotFoundError:  # a bare trainer has no Dagster to report to
        yield Progress(path, None)
        return
    if not dagster_pipes.PipesEnvVarParamsLoader().is_dagster_pipes_process():
        yield Progress(path, None)
        return
    with dagster_pipes.open_dagster_pipes() as pipes:
        yield Progress(path, pipes)
