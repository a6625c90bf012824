"""Resumable checkpoints on disk: written by a thread, whole or not at all, known by their hash; the last few are kept.

A checkpoint is `step-000000123.pt` with a header `step-000000123.json` that is renamed into place last, so a checkpoint without a header,
or whose bytes do not hash to what the header says, was cut short or damaged, and the one before it is used.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, cast

import torch

from platform_assets.errors import TrainingError
from platform_assets.networks.unpacking import load_tensors

CHUNK = 1 << 22


@dataclass(frozen=True)
class Written:
    """What came of writing one checkpoint: seconds it took, or `why` it is not there."""

    step: int
    size_bytes: int
    seconds: float
    why: str | None = None


@dataclass(frozen=True)
class _Header:
    step: int
    sha256: str
    size_bytes: int


class States:
    """The checkpoints of one training folder; one is written at a time."""

    def __init__(self, folder: Path, *, keep: int) -> None:
        self.folder = folder
        self._keep = keep
        self._thread: threading.Thread | None = None
        self._told: list[Written] = []
        self._took = 0.0

    @property
    def busy(self) -> bool:
        """Whether a checkpoint is being written now."""
        return self._thread is not None and self._thread.is_alive()

    def due(self, passed: float, *, every_seconds: float) -> bool:
        """Whether to begin the next one, so that the newest whole one is never older than `every_seconds`: writing takes its time too."""
        lead = min(self._took, every_seconds / 2)
        return not self.busy and passed >= every_seconds - lead

    def steps(self) -> list[int]:
        """List the steps of all checkpoints that have a header, newest first."""
        return sorted((int(path.stem.removeprefix("step-")) for path in self.folder.glob("step-*.json")), reverse=True)

    def write(self, step: int, state: dict[str, Any]) -> None:
        """Begin to write; `state` must not change any more. Waits for the one before."""
        self.wait()
        # Not a daemon: a program that ends by itself ends with its last checkpoint whole.
        self._thread = threading.Thread(target=self._write, args=(step, state), name="checkpoint")
        self._thread.start()

    def wait(self) -> None:
        """Return when nothing is being written."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def take_told(self) -> list[Written]:
        """What was written, or could not be, since the last call."""
        told, self._told = self._told, []
        return told

    def load(self, *, on_damage: Callable[[str], None]) -> tuple[int, dict[str, Any]] | None:
        """Return the newest whole checkpoint; every damaged one newer than it is named to `on_damage`."""
        for step in self.steps():
            try:
                return step, self._read(step)
            except (OSError, ValueError, TrainingError) as error:  # what a torn file makes json and our reader say
                on_damage(f"the checkpoint of step {step} is damaged ({error}); the one before it is used")
        return None

    def load_step(self, step: int) -> dict[str, Any]:
        """Return one checkpoint; one that is not there or damaged raises OSError, ValueError or TrainingError."""
        return self._read(step)

    def tidy(self) -> None:
        """Remove what a killed start left half written."""
        for part in self.folder.glob(".step-*.part"):
            part.unlink(missing_ok=True)
        for data in self.folder.glob("step-*.pt"):
            if not data.with_suffix(".json").exists():
                data.unlink(missing_ok=True)

    def _paths(self, step: int) -> tuple[Path, Path]:
        name = f"step-{step:09d}"
        return self.folder / f"{name}.pt", self.folder / f"{name}.json"

    def _read(self, step: int) -> dict[str, Any]:
        data, header = self._paths(step)
        known = _Header(**json.loads(header.read_text(encoding="utf-8")))
        with data.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != known.sha256:
            raise ValueError(f"{data.name} hashes to {found[:12]} and its header says {known.sha256[:12]}")
        state: dict[str, Any] = load_tensors(data)
        return state

    def _write(self, step: int, state: dict[str, Any]) -> None:
        start = time.monotonic()
        data, header = self._paths(step)
        beside = [path.with_name(f".{path.name}.part") for path in (data, header)]
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with beside[0].open("wb") as file:
                sink = _HashingSink(file.write)
                torch.save(state, cast("IO[bytes]", sink))
                sink.finish()
                file.flush()
                os.fsync(file.fileno())
            with beside[1].open("w", encoding="utf-8") as text:
                text.write(json.dumps(asdict(_Header(step, sink.hexdigest(), sink.size))))
                text.flush()
                os.fsync(text.fileno())
            header.unlink(missing_ok=True)  # of the same step, written before a fall back: never beside other bytes
            beside[0].replace(data)
            beside[1].replace(header)
            _sync_folder(self.folder)
            self._drop_old()
        except (OSError, RuntimeError, MemoryError) as error:
            for path in beside:
                with contextlib.suppress(OSError):
                    path.unlink(missing_ok=True)
            self._told.append(Written(step, 0, time.monotonic() - start, f"the checkpoint of step {step} could not be written: {error}"))
        else:
            self._took = time.monotonic() - start
            self._told.append(Written(step, sink.size, self._took))

    def _drop_old(self) -> None:
        for step in self.steps()[self._keep :]:
            data, header = self._paths(step)
            header.unlink(missing_ok=True)
            data.unlink(missing_ok=True)


class _HashingSink:
    """A file for torch.save that hashes what passes and keeps a full disk's error for afterwards.

    torch's writer runs in C++, where an exception from `write` ends the process instead of reaching us.
    """

    def __init__(self, write: Callable[[bytes], int]) -> None:
        self._pass_on = write
        self._hash = hashlib.sha256()
        self._error: OSError | None = None
        self.size = 0

    def write(self, data: Any) -> int:
        if self._error is None:
            try:
                self._pass_on(data)
            except OSError as error:
                self._error = error
            self._hash.update(data)
            self.size += len(data)
        return len(data)

    def flush(self) -> None:
        """Nothing is held back."""

    def finish(self) -> None:
        if self._error is not None:
            raise self._error

    def hexdigest(self) -> str:
        return self._hash.hexdigest()


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
