"""Counts of one worker's prediction log that survive SIGKILL: five numbers in a small mapped file a model.

The kernel keeps a mapped page when the process that wrote it is killed, so a count costs a store to memory and is never behind. Only a
machine that loses power may lose some. Rows are numbered as they are accepted: frames carry the number of their first row, and `until` is
the number after the last row known to be written, so that a kill between a write and its count is seen.
"""

from __future__ import annotations

import mmap
import os
import re
from pathlib import Path
from typing import Self

from platform_assets.specs.log_counts import LogCounts

_FIELDS = ("accepted", "written", "dropped", "lost", "until")
_SIZE = 8 * len(_FIELDS)
_FILE = re.compile(r"^worker-(\d+)\.counts$")
_ACCEPTED, _WRITTEN, _DROPPED, _LOST, _UNTIL = range(len(_FIELDS))


class CountsFile:
    """The counts of one worker and model, mapped; one process writes them."""

    def __init__(self, mapped: mmap.mmap) -> None:
        self._map = mapped
        self._numbers = memoryview(mapped).cast("Q")

    @classmethod
    def open(cls, folder: Path, *, worker: int) -> Self:
        """Open the file of a worker in a model's folder; there is one afterwards."""
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / f"worker-{worker}.counts").open("a+b") as file:
            os.posix_fallocate(file.fileno(), 0, _SIZE)  # or a store to it on a full disk would end the process
            return cls(mmap.mmap(file.fileno(), _SIZE))

    @classmethod
    def in_memory(cls) -> Self:
        """Count without keeping it, where the file cannot be made."""
        return cls(mmap.mmap(-1, _SIZE))

    @property
    def accepted(self) -> int:
        """Rows accepted so far: the number of the next one."""
        return self._numbers[_ACCEPTED]

    @property
    def until(self) -> int:
        """Number after the last row that is known to be written."""
        return self._numbers[_UNTIL]

    def accept(self, rows: int) -> int:
        """Count rows that were answered; return the number of the first."""
        first = self._numbers[_ACCEPTED]
        self._numbers[_ACCEPTED] = first + rows
        return first

    def drop(self, rows: int) -> None:
        """Count rows that will not be written."""
        self._numbers[_DROPPED] += rows

    def wrote(self, rows: int, *, until: int) -> None:
        """Count rows that stand in a file now, up to but not with number `until`."""
        self._numbers[_WRITTEN] += rows
        self._numbers[_UNTIL] = until

    def flush(self) -> None:
        """Bring the counts to the disk."""
        self._map.flush()

    def settle(self, found: int) -> int:
        """Take in what a killed process left: `found` rows beyond `until` stand in its files, all others are lost. Return how many are."""
        numbers = self._numbers
        numbers[_WRITTEN] += found
        known = numbers[_WRITTEN] + numbers[_DROPPED] + numbers[_LOST]
        numbers[_ACCEPTED] = max(numbers[_ACCEPTED], known)  # where somebody removed the counts and left the files
        lost = numbers[_ACCEPTED] - known
        numbers[_LOST] += lost
        numbers[_UNTIL] = numbers[_ACCEPTED]
        return lost

    def read(self) -> LogCounts:
        """Return the counts of now."""
        numbers = self._numbers
        return LogCounts(numbers[_ACCEPTED], numbers[_WRITTEN], numbers[_DROPPED], numbers[_LOST])

    def close(self) -> None:
        """Unmap; the file stays."""
        self._numbers.release()
        self._map.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def workers_of(folder: Path) -> list[int]:
    """Workers that ever counted in a model's folder."""
    return sorted(int(match[1]) for file in folder.glob("worker-*.counts") if (match := _FILE.match(file.name)))


def read_counts(folder: Path) -> LogCounts:
    """Return the sum of all workers' counts of a model, whether they run or not."""
    total = LogCounts()
    for worker in workers_of(folder):
        with CountsFile.open(folder, worker=worker) as counts:
            total += counts.read()
    return total
