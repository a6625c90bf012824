"""The prediction log: one frame a run, written by a thread, so that no reply ever waits for a disk. What a frame is stands in frames.py.

Runs are put into frames at once, side by side in one buffer a model (log_buffer.py): objects that wait would be memory that each request
finds cold, and their encoding in the thread would take the interpreter from the loop. Only what is long to encode waits as it is.

`<folder>/<model>/<n>-<worker>.open.frames` is being written; `<n>-<worker>.frames` is closed and never changes. At most the last second is
lost at SIGKILL, and the next start says how many rows (log_counts.py). With `to_disk` the same holds when the power goes: what was written
is on the disk before it counts as written.
"""

from __future__ import annotations

import math
import os
import re
import threading
import time
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from platform_assets.stages.serving.frames import Answered, describe, encode, rows_from, whole_frames
from platform_assets.stages.serving.log_buffer import Chunk, LogBuffer
from platform_assets.stages.serving.log_counts import CountsFile, workers_of

MAX_WAITING_ROWS = 100_000
SEGMENT_BYTES = 64 << 20
_FLUSH_SECONDS = 0.5
_SOON_ROWS, _SOON_NAMED_ROWS = (
    512,
    8,
)  # of a run, packed or as JSON, and where a request's rows are still to be made: more is for the thread
_KEPT_DESCRIPTIONS = 64
_OPEN, _CLOSED = ".open.frames", ".frames"
_SEGMENT = re.compile(r"^(\d+)-(\d+)(\.open)?\.frames$")


class PredictionLog:
    """Hands answered requests to the writing thread; beyond the bound rows are dropped and counted, never waited for."""

    def __init__(
        self, folder: Path, *, worker: int = 0, segment_bytes: int = SEGMENT_BYTES, to_disk: bool = False, close_seconds: float = math.inf
    ) -> None:
        """A segment is closed at this size or this age, whichever comes first."""
        self._folder, self._worker = folder, worker
        self._segment_bytes, self._to_disk, self._close_seconds = segment_bytes, to_disk, close_seconds
        self._buffers: dict[str, LogBuffer] = {}
        self._buffers_lock = threading.Lock()  # between putting a frame and taking what waits
        self._descriptions: dict[str, bytes] = {}
        self._waiting: deque[tuple[str, Chunk | Answered]] = deque()
        self._waiting_rows = 0
        self._written_rows = 0
        self._orders: deque[tuple[str, Future[list[Path]]]] = deque()
        self._wake = threading.Event()
        self._stopping = False
        self._segments: dict[str, _Segment] = {}
        self.dropped_rows = 0
        self.write_errors = 0
        self.fault = ""  # why the newest rows could not be written, until some can be again
        folder.mkdir(parents=True, exist_ok=True)
        close_left_overs(folder, worker=str(worker))  # of a worker that was killed, whose place this one takes
        begun = [model for model in folder.iterdir() if model.is_dir() and worker in workers_of(model)]
        self._counts = {model.name: CountsFile.open(model, worker=worker) for model in begun}
        self._thread = threading.Thread(target=self._work, name="prediction-log", daemon=True)
        self._thread.start()

    @property
    def waiting_rows(self) -> int:
        """Rows handed over and not yet written."""
        return self._waiting_rows - self._written_rows

    @property
    def lost_rows(self) -> int:
        """Rows that went with killed processes in this one's place, since the log began."""
        return sum(counts.read().lost for counts in self._counts.values())

    def add(self, answered: Answered) -> None:
        """Hand over without waiting."""
        counts = self._counts.get(answered.model) or self._begin_counting(answered.model)
        answered.first = counts.accept(answered.num_rows)
        if self.waiting_rows + answered.num_rows > MAX_WAITING_ROWS:
            self._drop(answered.model, answered.num_rows)
            return
        self._waiting_rows += answered.num_rows
        buffer = self._buffers.get(answered.model)
        if buffer is None:
            buffer = self._buffers[answered.model] = LogBuffer()
        if _is_long(answered):
            with self._buffers_lock:
                self._take(answered.model, buffer)
                self._waiting.append((answered.model, answered))
            self._wake.set()
            return
        frame, until = encode(answered), answered.first + answered.num_rows
        description = self._descriptions.get(answered.digest) or self._describe(answered)
        with self._buffers_lock:
            if not buffer.has_room(len(frame)):
                self._take(answered.model, buffer)
                self._wake.set()
            buffer.put(frame, digest=answered.digest, description=description, rows=answered.num_rows, until=until)

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
            self._close_aged()
            for model, future in orders:
                self._carry_out(model, future)
            if stopping:
                for segment in self._segments.values():
                    segment.close()
                return

    def _begin_counting(self, model: str) -> CountsFile:
        try:
            counts = CountsFile.open(self._folder / model, worker=self._worker)
        except OSError as error:  # a full disk must not stop predictions
            self.fault = f"the counts of {model} cannot be kept: {error.strerror}"
            counts = CountsFile.in_memory()
        self._counts[model] = counts
        return counts

    def _drop(self, model: str, rows: int) -> None:
        self.dropped_rows += rows
        self._counts[model].drop(rows)

    def _carry_out(self, model: str, future: Future[list[Path]]) -> None:
        try:
            if (segment := self._segments.pop(model, None)) is not None:
                segment.close()
            future.set_result(closed_segments(self._folder / model))
        except OSError as error:
            future.set_exception(error)

    def _describe(self, answered: Answered) -> bytes:
        if len(self._descriptions) >= _KEPT_DESCRIPTIONS:
            self._descriptions.clear()
        description = self._descriptions[answered.digest] = describe(answered)
        return description

    def _take(self, model: str, buffer: LogBuffer) -> None:
        """Hand over what a buffer holds; the lock is held."""
        if buffer.rows:
            self._waiting.append((model, buffer.take()))

    def _write_waiting(self) -> None:
        with self._buffers_lock:
            for model, buffer in self._buffers.items():
                self._take(model, buffer)
        for _ in range(len(self._waiting)):
            model, found = self._waiting.popleft()
            chunk = found if isinstance(found, Chunk) else _as_chunk(found)
            try:
                self._write(model, chunk)
            except OSError as error:  # a full disk must not stop predictions; it shows in /status and /metrics
                self.write_errors += 1
                self.fault = f"the predictions of {model} cannot be written: {error.strerror}"
                self._drop(model, chunk.rows)
            else:
                self.fault = ""
                self._counts[model].wrote(chunk.rows, until=chunk.until)
                if self._to_disk:
                    self._counts[model].flush()
            self._written_rows += chunk.rows

    def _write(self, model: str, chunk: Chunk) -> None:
        segment = self._segments.get(model)
        if segment is None:
            segment = self._segments[model] = _Segment.start(self._folder / model, self._worker, to_disk=self._to_disk)
        segment.write(chunk)
        if segment.size >= self._segment_bytes:
            del self._segments[model]
            segment.close()

    def _close_aged(self) -> None:
        for model, segment in list(self._segments.items()):
            if time.monotonic() - segment.began < self._close_seconds:
                continue
            del self._segments[model]
            try:
                segment.close()
            except OSError as error:  # the next start closes it
                self.write_errors += 1
                self.fault = f"the log of {model} cannot be closed: {error.strerror}"


def _is_long(answered: Answered) -> bool:
    """Whether to encode a run would keep the event loop."""
    if answered.num_rows <= _SOON_NAMED_ROWS:
        return False
    return answered.num_rows > _SOON_ROWS or any(type(request.source) is not bytes for request in answered.requests)


def _as_chunk(answered: Answered) -> Chunk:
    return Chunk(encode(answered), {answered.digest: describe(answered)}, answered.num_rows, answered.first + answered.num_rows)


@dataclass
class _Segment:
    """The open file of one model."""

    file: Path
    stream: IO[bytes]
    began: float
    to_disk: bool = False
    size: int = 0
    described: frozenset[str] = frozenset()

    @classmethod
    def start(cls, folder: Path, worker: int, *, to_disk: bool) -> _Segment:
        """Open the next number. Numbers never come again, even after a reader removed closed segments: they follow the wall clock."""
        folder.mkdir(parents=True, exist_ok=True)
        last = max((_number(file) for file in folder.iterdir() if _SEGMENT.match(file.name)), default=0)
        file = folder / f"{max(last + 1, time.time_ns() // 1_000_000)}-{worker}{_OPEN}"
        segment = cls(file, file.open("xb", buffering=0), time.monotonic(), to_disk)
        if to_disk:
            for name in (folder, folder.parent):  # or the power goes, and with it the name of what was written
                _sync(name)
        return segment

    def write(self, chunk: Chunk) -> None:
        """Append whole frames; what fails is cut off again, so that no torn frame stands in the middle."""
        new = [text for digest, text in chunk.descriptions.items() if digest not in self.described]
        data = b"".join([*new, chunk.frames]) if new else chunk.frames
        try:
            view = memoryview(data)
            while view:
                view = view[self.stream.write(view) :]
            if self.to_disk:
                os.fdatasync(self.stream.fileno())
        except OSError:
            os.ftruncate(self.stream.fileno(), self.size)
            self.stream.seek(self.size)
            raise
        self.size += len(data)
        self.described |= chunk.descriptions.keys()

    def close(self) -> None:
        """Bring it to the disk and give it its final name."""
        os.fsync(self.stream.fileno())
        self.stream.close()
        _finish(self.file)


def close_left_overs(folder: Path, *, worker: str = "*") -> None:
    """Close what killed processes left open, of one worker or of all, and count what they lost; only where none of them runs.

    Torn last frames are cut off, empty segments removed. Counts are settled before a file gets its final name: killed in between, the next
    call finds the same rows counted already.
    """
    for model in sorted(path for path in folder.glob("*") if path.is_dir()):
        opened = sorted(model.glob(f"*-{worker}{_OPEN}"))
        counted = [one for one in workers_of(model) if worker in ("*", str(one))]
        for one in sorted({*counted, *(_order(file)[1] for file in opened)}):
            left = [file for file in opened if _order(file)[1] == one]
            with CountsFile.open(model, worker=one) as counts:
                counts.settle(sum(_cut_torn(file, until=counts.until) for file in left))
            for file in left:
                if file.stat().st_size:
                    _finish(file)
                else:
                    file.unlink()


def _cut_torn(file: Path, *, until: int) -> int:
    """Cut the torn end off a segment; return how many of its rows have the number `until` or a later one."""
    content = file.read_bytes()
    whole = whole_frames(content)
    if whole < len(content):
        os.truncate(file, whole)
    return rows_from(content[:whole], until)


def closed_segments(folder: Path) -> list[Path]:
    """Closed segments of a model, oldest first."""
    if not folder.is_dir():
        return []
    return sorted((file for file in folder.iterdir() if (match := _SEGMENT.match(file.name)) and not match[3]), key=_order)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _finish(file: Path) -> None:
    file.rename(file.with_name(file.name.removesuffix(_OPEN) + _CLOSED))


def _number(file: Path) -> int:
    return _order(file)[0]


def _order(file: Path) -> tuple[int, int]:
    number, _, worker = file.name.split(".", 1)[0].partition("-")
    return int(number), int(worker)
