"""Progress for a terminal: one bar a phase, steps named as they start. Without a terminal, one line a step."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn


class Bars:
    """The bars of one main job."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress = Progress(
            SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=console
        )  # fmt: skip
        self._task: TaskID | None = None
        self._phase = self._said = ""
        self._steps: int | None = None

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Show the bars for as long as the block runs."""
        if not self._console.is_terminal:
            yield
            return
        with self._progress:
            yield

    @contextmanager
    def phase(self, name: str, total: int, *, of: Literal["steps", "events"]) -> Iterator[None]:
        """One bar: a job of `total` steps, or a stream of `total` events."""
        self._phase, started = name, time.monotonic()
        self._steps = 0 if of == "steps" else None
        self._task = self._progress.add_task(name, total=total)
        try:
            yield
        finally:
            if not self._console.is_terminal:
                self._console.print(f"{name}: {time.monotonic() - started:.1f} s", highlight=False)
            self._progress.update(self._task, description=name, completed=total if of == "steps" else None)
            self._task = None

    def step(self, name: str) -> None:
        """One more step began; what came before it is done."""
        if self._steps is not None:
            self.advance(1 if self._steps else 0)
            self._steps += 1
            self.note(name)

    def note(self, text: str) -> None:
        """Name what is going on within the phase."""
        if self._task is not None and text != self._said:
            self._said = text
            self._progress.update(self._task, description=f"{self._phase}: {text}")

    def advance(self, count: int = 1) -> None:
        """So many steps or events more are done."""
        if self._task is not None:
            self._progress.update(self._task, advance=count)
