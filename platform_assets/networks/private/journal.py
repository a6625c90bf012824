"""How many private steps may have been taken, on disk before they are: a start after a kill or a loss of power never counts too few.

The number is reserved in blocks, a sync each; what a killed start had reserved counts as taken. An orderly end writes the exact number.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from platform_assets.errors import TrainingError

if TYPE_CHECKING:
    from pathlib import Path

JOURNAL_FILE = "private_steps.json"


class Journal:
    """Counts the steps of one training folder; `block` steps are reserved at once."""

    def __init__(self, folder: Path, *, block: int) -> None:
        self._path, self._block = folder / JOURNAL_FILE, block
        self.steps = self._reserved = self._read()

    def begin(self, *, most: int) -> bool:
        """Count one step more; False where that would be more than `most`."""
        if self.steps >= most:
            return False
        if self.steps == self._reserved:
            self._write(min(self.steps + self._block, most))
        self.steps += 1
        return True

    def settle(self) -> None:
        """Write the exact number, once no step is under way."""
        if self._reserved != self.steps:
            self._write(self.steps)

    def _read(self) -> int:
        try:
            steps = json.loads(self._path.read_text())["steps"]
        except FileNotFoundError:
            return 0
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise TrainingError(
                f"{self._path} does not say how many private steps were taken ({error}); give an empty folder for --out"
            ) from error
        if not isinstance(steps, int) or steps < 0:
            raise TrainingError(f"{self._path} says {steps!r} private steps were taken; give an empty folder for --out")
        return steps

    def _write(self, steps: int) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        beside = self._path.with_name(f".{JOURNAL_FILE}.{os.getpid()}")
        with beside.open("w") as file:
            json.dump({"steps": steps}, file)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(self._path)
        handle = os.open(self._path.parent, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
        self._reserved = steps
