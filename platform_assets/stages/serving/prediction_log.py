"""The prediction log: one frame a run, written by a thread, so that no reply ever waits for a disk. What a frame is stands in frames.py.

`<folder>/<model>/<n>.open.frames` is being written; `<n>.frames` is closed and never changes. At most the last second is lost at SIGKILL.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from platform_assets.stages.serving.frames import Answered, describe, encode, whole_frames

MAX_WAITING_ROWS = 100_000
SEGMENT_BYTES = 64 << 20
_FLUSH_SECONDS = 0.5
_WAKE_ROWS = 512  # written earlier under load: waiting rows are memory
_OPEN, _CLOSED = ".open.frames", ".frames"
_SEGMENT = re.compile(r"^(\d+)(\.open)?\.frames$")


class PredictionLog:
    """Hands answered requests to the writing thread; beyond the bound rows are dropped and counted, never waited for."""

    def __init__(self, folder: Path, *, segment_bytes: int = SEGMENT_BYTES) -> None:
        self._folder = folder
        self._segment_bytes = segment_bytes
        self._waiting: deque[Answered] = deque()
        self._waiting_rows = 0
        self._written_rows = 0
        self._orders: deque[tuple[str, Future[list[Path]]]] = deque()
        self._wake = threading.Event()
        self._stopping = False
        self._segments: dict[str, _Segment] = {}
        self.dropped_rows = 0
        self.write_errors = 0
        folder.mkdir(parents=True, exist_ok=True)
        for left in sorted(folder.glob(f"*/*{_OPEN}")):
            close_left_over(left)
        self._thread = threading.Thread(target=self._work, name="prediction-log", daemon=True)
        self._thread.start()

    @property
    def waiting_rows(self) -> int:
        """Rows handed over and not yet written."""
        return self._waiting_rows - self._written_rows

    def add(self, answered: Answered) -> None:
        """Hand over without waiting."""
        if self.waiting_rows + answered.num_rows > MAX_WAITING_ROWS:
            self.dropped_rows += answered.num_rows
            return
        self._waiting_rows += answered.num_rows
        self._waiting.append(answered)
        if self.waiting_rows >= _WAKE_ROWS:
            self._wake.set()

    def rotate(self, model: str) -> Future[list[Path]]:
        """Close the model's segment once everything handed over so far is in it; the future holds all closed ones, oldest first."""
        future: Future[list[Path]] = Future()
        self._orders.append((model, future))
        self._wake.set()
        return future

    def stop(self) -> None:
        """Write what waits, close every segment and end the thread."""
        self._stopping = True
        self._wake.set()
        self._thread.join(timeout=30)

    def _work(self) -> None:
        while True:
            self._wake.wait(_FLUSH_SECONDS)
            self._wake.clear()
            stopping = self._stopping
            orders = [self._orders.popleft() for _ in range(len(self._orders))]
            self._write_waiting()
            for model, future in orders:
                self._carry_out(model, future)
            if stopping:
                for segment in self._segments.values():
                    segment.close()
                return

    def _carry_out(self, model: str, future: Future[list[Path]]) -> None:
        try:
            if (segment := self._segments.pop(model, None)) is not None:
                segment.close()
            future.set_result(closed_segments(self._folder / model))
        except OSError as error:
            future.set_exception(error)

    def _write_waiting(self) -> None:
        runs: dict[str, list[Answered]] = {}
        for _ in range(len(self._waiting)):
            answered = self._waiting.popleft()
            runs.setdefault(answered.model, []).append(answered)
            self._written_rows += answered.num_rows
        for model, found in runs.items():
            try:
                self._write(model, found)
            except OSError:  # a full disk must not stop predictions; it shows in /status and /metrics
                self.write_errors += 1
                self.dropped_rows += sum(answered.num_rows for answered in found)

    def _write(self, model: str, runs: list[Answered]) -> None:
        segment = self._segments.get(model)
        if segment is None:
            segment = self._segments[model] = _Segment.start(self._folder / model)
        segment.write(runs)
        if segment.size >= self._segment_bytes:
            del self._segments[model]
            segment.close()


@dataclass
class _Segment:
    """The open file of one model."""

    file: Path
    stream: IO[bytes]
    size: int = 0
    described: frozenset[str] = frozenset()

    @classmethod
    def start(cls, folder: Path) -> _Segment:
        """Open the next number. Numbers never come again, even after a reader removed closed segments: they follow the wall clock."""
        folder.mkdir(parents=True, exist_ok=True)
        last = max((_number(file) for file in folder.iterdir() if _SEGMENT.match(file.name)), default=0)
        file = folder / f"{max(last + 1, time.time_ns() // 1_000_000)}{_OPEN}"
        return cls(file, file.open("xb", buffering=0))

    def write(self, runs: Sequence[Answered]) -> None:
        """Append whole frames; what fails is cut off again, so that no torn frame stands in the middle."""
        new = {run.digest: run for run in runs if run.digest not in self.described}
        data = b"".join([*(describe(run) for run in new.values()), *(encode(run) for run in runs)])
        try:
            view = memoryview(data)
            while view:
                view = view[self.stream.write(view) :]
        except OSError:
            os.ftruncate(self.stream.fileno(), self.size)
            self.stream.seek(self.size)
            raise
        self.size += len(data)
        self.described |= new.keys()

    def close(self) -> None:
        """Bring it to the disk and give it its final name."""
        os.fsync(self.stream.fileno())
        self.stream.close()
        _finish(self.file)


def close_left_over(file: Path) -> None:
    """Close a segment that a killed server left open; a torn last frame is cut off, an empty segment removed."""
    content = file.read_bytes()
    whole = whole_frames(content)
    if whole == 0:
        file.unlink()
        return
    if whole < len(content):
        os.truncate(file, whole)
    _finish(file)


def closed_segments(folder: Path) -> list[Path]:
    """Closed segments of a model, oldest first."""
    if not folder.is_dir():
        return []
    return sorted((file for file in folder.iterdir() if (match := _SEGMENT.match(file.name)) and not match[2]), key=_number)


def _finish(file: Path) -> None:
    file.rename(file.with_name(file.name.removesuffix(_OPEN) + _CLOSED))


def _number(file: Path) -> int:
    return int(file.name.split(".", 1)[0])
