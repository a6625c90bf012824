"""The prediction log: one JSON line a row, written by a thread, so that no reply ever waits for a disk.

`<folder>/<model>/<n>.open.jsonl` is being written; `<n>.jsonl` is closed and never changes. At most the last second is lost at SIGKILL.
Probabilities stand in the order of the schema's classes.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

import orjson

MAX_WAITING_ROWS = 100_000
SEGMENT_BYTES = 64 << 20
_FLUSH_SECONDS = 0.5
_WAKE_ROWS = 512  # written earlier under load: waiting rows are memory
_OPEN, _CLOSED = ".open.jsonl", ".jsonl"
_SEGMENT = re.compile(r"^(\d+)(\.open)?\.jsonl$")


@dataclass(frozen=True, eq=False)
class Answered:
    """One answered request as the hot path hands it over; `rows` is called by the writing thread."""

    model: str
    version: str
    digest: str
    request_id: str
    time: float
    key: str
    event_time: str
    rows: Callable[[], Sequence[dict[str, Any]]]
    classes: tuple[str, ...]
    probabilities: Any
    num_rows: int


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
        lines: dict[str, list[bytes]] = {}
        for _ in range(len(self._waiting)):
            answered = self._waiting.popleft()
            lines.setdefault(answered.model, []).extend(_lines(answered))
            self._written_rows += answered.num_rows
        for model, found in lines.items():
            try:
                self._write(model, found)
            except OSError:  # a full disk must not stop predictions; it shows in /status and /metrics
                self.write_errors += 1
                self.dropped_rows += len(found)

    def _write(self, model: str, lines: list[bytes]) -> None:
        segment = self._segments.get(model)
        if segment is None:
            segment = self._segments[model] = _Segment.start(self._folder / model)
        segment.write(b"".join(lines))
        if segment.size >= self._segment_bytes:
            del self._segments[model]
            segment.close()


@dataclass
class _Segment:
    """The open file of one model."""

    file: Path
    stream: IO[bytes]
    size: int = 0

    @classmethod
    def start(cls, folder: Path) -> _Segment:
        """Open the next number. Numbers never come again, even after a reader removed closed segments: they follow the wall clock."""
        folder.mkdir(parents=True, exist_ok=True)
        last = max((_number(file) for file in folder.iterdir() if _SEGMENT.match(file.name)), default=0)
        file = folder / f"{max(last + 1, time.time_ns() // 1_000_000)}{_OPEN}"
        return cls(file, file.open("xb", buffering=0))

    def write(self, data: bytes) -> None:
        """Append whole lines; what fails is cut off again, so that no torn line stands in the middle."""
        try:
            view = memoryview(data)
            while view:
                view = view[self.stream.write(view) :]
        except OSError:
            os.ftruncate(self.stream.fileno(), self.size)
            self.stream.seek(self.size)
            raise
        self.size += len(data)

    def close(self) -> None:
        """Bring it to the disk and give it its final name."""
        os.fsync(self.stream.fileno())
        self.stream.close()
        _finish(self.file)


def close_left_over(file: Path) -> None:
    """Close a segment that a killed server left open; a torn last line is cut off, an empty segment removed."""
    content = file.read_bytes()
    whole = content.rfind(b"\n") + 1
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


def _lines(answered: Answered) -> list[bytes]:
    stamp = datetime.fromtimestamp(answered.time, UTC).replace(tzinfo=None).isoformat(timespec="microseconds")
    best = answered.probabilities.argmax(axis=1).tolist()
    shares = answered.probabilities.tolist()
    lines = []
    for at, row in enumerate(answered.rows()):
        inputs = dict(row)
        line = {
            "prediction_id": f"{answered.request_id}:{at}",
            "request_id": answered.request_id,
            "model": answered.model,
            "version": answered.version,
            "digest": answered.digest,
            "time": stamp,
            "key": inputs.pop(answered.key, None),
            "event_time": inputs.pop(answered.event_time, None),
            "inputs": inputs,
            "label": answered.classes[best[at]],
            "probabilities": shares[at],
        }
        lines.append(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))
    return lines
