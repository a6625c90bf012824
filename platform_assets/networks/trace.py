"""A torch.profiler trace of a few steps, once a training: trace.json.gz, which Perfetto and chrome://tracing open."""

from __future__ import annotations

import contextlib
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

SETTLED = 10  # the steps before it allocate, compile and fill caches


class Trace:
    """Records the steps after `first`; a file that is there already is left as it is."""

    def __init__(self, path: Path, *, steps: int, total: int) -> None:
        self._path = path
        self._first = min(SETTLED, max(1, total - steps))
        self._last = self._first + steps
        self._done = self._last if path.exists() else 0
        self._profile: profile | None = None

    def advance(self) -> None:
        """Say that a step is done."""
        if self._done > self._last:
            return
        self._done += 1
        if self._done == self._first:
            activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if torch.cuda.is_available() else [])]
            self._profile = profile(activities=activities, record_shapes=True)
            self._profile.start()
        elif self._done == self._last:
            self.end()

    def end(self) -> None:
        """Write what was recorded, if anything is being recorded."""
        if self._profile is None:
            return
        self._profile.stop()
        beside = self._path.with_name(f".{self._path.name}")
        with contextlib.suppress(OSError):  # a full disk costs the trace, not the training
            self._profile.export_chrome_trace(str(beside))
            beside.replace(self._path)
        self._profile = None
