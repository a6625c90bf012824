"""Progress for a terminal: one bar a phase, steps named as they start. Without a terminal, one line a step."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn


class Bars:
    """The bars of one main job."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress = Progress(
            SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=console, transient=False
        )  # fmt: skip
        self._task: TaskID | None = None
        self._phase = ""

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Show the bars for as long as the block runs."""
        if not self._console.is_terminal:
            yield
            return
        with self._progress:
            yield

    @contextmanager
    def phase(self, name: str, total: int) -> Iterator[None]:
        """One bar: a job of `total` steps, or a stream of `total` events."""
        self._phase, started = name, time.monotonic()
        self._task = self._progress.add_task(name, total=total)
        try:
            yield
        finally:
            if not self._console.is_terminal:
                self._console.print(f"{name}: {time.monotonic() - started:.1f} s", highlight=False)
            self._progress.update(self._task, description=name)
            self._task = None

    def note(self, text: str) -> None:
        """Name what is going on within the phase."""
        if self._task is not None:
            self._progress.update(self._task, description=f"{self._phase}: {text}")
            if not self._console.is_terminal:
                self._console.print(f"  {self._phase}: {text}", highlight=False)

    def advance(self, count: int = 1) -> None:
        """So many steps or events more are done."""
        if self._task is not None:
            self._progress.update(self._task, advance=count)
