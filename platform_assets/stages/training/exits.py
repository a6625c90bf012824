"""How a training ended: exit.json, written whole and last of all, and the exit status that says the same. A killed trainer leaves none."""

from __future__ import annotations

import contextlib
import errno
import gc
import json
import os
import time
import traceback
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from platform_assets.errors import DivergedError, FalajError, PreemptedError
from platform_assets.logs import say
from platform_assets.networks.trail import Trail

EXIT = "exit.json"
CODES = {"finished": 0, "failed": 1, "out_of_memory": 70, "diverged": 71, "preempted": 75}
# What torch, pyarrow, the loader and the kernel say when there is no memory, beside MemoryError and torch.OutOfMemoryError.
_NO_MEMORY = (
    "DefaultCPUAllocator",
    "an't allocate memory",
    "annot allocate memory",
    "std::bad_alloc",
    "failed to map segment",
    "out of memory",
)


@dataclass(frozen=True)
class Exit:
    """One start's end; `restored_from` is the step of the checkpoint that it went on from, `lost_steps` what was done twice."""

    outcome: str
    code: int
    sentence: str
    step: int
    seconds: float
    restored_from: int | None
    lost_steps: int


def read_exit(out: Path) -> Exit | None:
    """Return how the latest start ended; None when it runs, was killed or never was."""
    path = out / EXIT
    return Exit(**json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else None


class Ending:
    """Around all of a trainer's work: turns its end into exit.json and `code`.

    Errors of ours become one sentence on stderr. An error nobody foresaw is recorded as `failed` and goes on as a traceback.
    """

    def __init__(self, out: Path, *, trail: Trail, rank: int) -> None:
        self._out, self._trail, self._rank = out, trail, rank
        self._start = time.monotonic()
        self.code = CODES["failed"]

    def __enter__(self) -> Self:
        """Forget how the start before ended."""
        if self._rank == 0:
            self._out.mkdir(parents=True, exist_ok=True)
            (self._out / EXIT).unlink(missing_ok=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> bool:
        """Write exit.json; True when the error was one of ours."""
        outcome, sentence = outcome_of(error)
        if outcome == "out_of_memory":
            traceback.clear_frames(trace)  # their tensors are what filled it
            gc.collect()
        self.code = CODES[outcome]
        trail = self._trail
        seconds = round(time.monotonic() - self._start, 3)
        ended = Exit(outcome, self.code, sentence, trail.step, seconds, trail.restored_from, trail.lost_steps)
        self._write(ended)
        if error is None:
            return False
        say(sentence)
        return outcome != "failed" or isinstance(error, FalajError)

    def give_up(self, reason: str) -> None:
        """End this process now, as preempted: the work was asked to end and did not; the newest checkpoint on disk is what is left."""
        sentence = f"The training was {reason} and did not come to an end by itself; a new start goes on from the newest checkpoint."
        trail = self._trail
        seconds = round(time.monotonic() - self._start, 3)
        self._write(Exit("preempted", CODES["preempted"], sentence, trail.step, seconds, trail.restored_from, trail.lost_steps))
        os._exit(CODES["preempted"])

    def _write(self, ended: Exit) -> None:
        """Only rank 0 knows of a good end; of a bad one whoever meets it first speaks: what the others see is its silence."""
        if self._rank != 0 and ended.outcome in {"finished", "preempted"}:
            return
        beside = self._out / f".{EXIT}.{self._rank}"
        with contextlib.suppress(OSError):  # a full disk: the exit status still tells
            with beside.open("w", encoding="utf-8") as file:
                file.write(json.dumps(asdict(ended), indent=1))
                file.flush()
                os.fsync(file.fileno())
            if ended.outcome == "finished":
                beside.replace(self._out / EXIT)
            else:
                with contextlib.suppress(FileExistsError):
                    os.link(beside, self._out / EXIT)
        beside.unlink(missing_ok=True)


def outcome_of(error: BaseException | None) -> tuple[str, str]:
    """Name the outcome of a training that ended with this error, and say it in a sentence."""
    if error is None:
        return "finished", "The training finished."
    if isinstance(error, PreemptedError):
        return "preempted", f"The training was {error}; its state is saved and a new start goes on from there."
    if isinstance(error, DivergedError):
        return "diverged", str(error)
    if is_out_of_memory(error):
        return (
            "out_of_memory",
            f"The training ran out of memory ({_first_line(error)}); take a larger profile or more training.micro_batches.",
        )
    if isinstance(error, FalajError):
        return "failed", str(error)
    return "failed", f"The training failed: {type(error).__name__}: {_first_line(error)}"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error, or what caused it, is memory running out, on a GPU or on the CPU."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # torch's, which is not imported here
        return True
    if isinstance(error, OSError) and error.errno == errno.ENOMEM:
        return True
    if isinstance(error, (RuntimeError, ImportError)) and any(word in str(error) for word in _NO_MEMORY):
        return True
    before = error.__cause__ or error.__context__
    return before is not None and is_out_of_memory(before)


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
