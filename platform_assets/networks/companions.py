"""What a training program uses where it is installed: dagster_pipes to speak to Dagster, psutil and pynvml to watch the machine.

The one module that knows the three. Without them the program trains all the same and reports to files: progress.jsonl (a line a
step of the work) and telemetry.jsonl (a line every few seconds, read by stages.telemetry). Nothing here ever stops a training: what
cannot be measured is null, what cannot be written is lost.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import resource
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

PROGRESS = "progress.jsonl"
_LAST_SAMPLE_SECONDS = 2.0  # a call that a broken driver never answers must not hold up the end of a training


class Report(Protocol):
    """Where a program says how far it is."""

    def step(self, name: str, **figures: float | str) -> None:
        """Say that one step (an epoch, a candidate) is done, with its figures."""


class Progress:
    """Appends to progress.jsonl and, under Pipes, to the run's event log. Only rank 0 of a training says anything."""

    def __init__(self, path: Path, *, speaks: bool = True) -> None:
        self._path, self._speaks = path, speaks
        self._pipes: Any | None = None
        self._start = time.monotonic()

    def __enter__(self) -> Self:
        """Open Pipes where Dagster started this process; where its files are gone, the program goes on without."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._pipes = _open_pipes() if self._speaks else None
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Say goodbye to Dagster, with the error that ended the work."""
        if self._pipes is not None:
            self._tell(lambda pipes: pipes.__exit__(kind, error, trace))

    def step(self, name: str, **figures: float | str) -> None:
        """Write one line; a line cut short by a kill is the last one, and readers skip it."""
        if not self._speaks:
            return
        line = {"step": name, "seconds": round(time.monotonic() - self._start, 3), **figures}
        with contextlib.suppress(OSError), self._path.open("a", encoding="utf-8") as file:  # a full disk costs the line, not the training
            file.write(json.dumps(line) + "\n")
        shown = ", ".join(f"{key} {value:.4f}" if isinstance(value, float) else f"{key} {value}" for key, value in figures.items())
        self._tell(lambda pipes: pipes.log.info("%s: %s", name, shown))

    def materialised(self, metadata: Mapping[str, Any]) -> None:
        """Tell Dagster the result's figures, when it is there to hear them."""
        self._tell(lambda pipes: pipes.report_custom_message({"result": dict(metadata)}))

    def _tell(self, message: Callable[[Any], None]) -> None:
        """Hand Pipes a message; once its file is gone (Dagster was killed and swept up), nothing more is tried."""
        if self._pipes is None:
            return
        try:
            message(self._pipes)
        except OSError:
            self._pipes = None


def open_progress(out: Path) -> Progress:
    """Progress for a program that writes into `out`, to be used in a `with`; other ranks than 0 keep silent."""
    return Progress(out / PROGRESS, speaks=place_here().rank == 0)


def _open_pipes() -> Any | None:
    try:
        import dagster_pipes
    except ModuleNotFoundError:  # a bare trainer has no Dagster to report to
        return None
    if not dagster_pipes.PipesEnvVarParamsLoader().is_dagster_pipes_process():
        return None
    with contextlib.suppress(OSError):
        return dagster_pipes.open_dagster_pipes()
    return None


@dataclass
class Figures:
    """What a training loop tells its sampler: plain attributes, set by the loop and read by the sampler's thread.

    `samples` and `waited_seconds` only grow: rows that this process has learned from, and seconds it stood waiting for its next
    batch. Setting them costs nothing; `loss` is set when the loop knows it anyway (reading it off a GPU each step would cost).
    """

    samples: int = 0
    waited_seconds: float = 0.0
    step: int = 0
    loss: float | None = None


@contextmanager
def sample_machine(out: Path, *, every_seconds: float, figures: Figures) -> Iterator[None]:
    """Write a line on this process and its GPUs into `out` every few seconds, from a thread, until the block ends.

    Lines of telemetry.jsonl (rank 0; others telemetry-<rank>.jsonl): {"at": epoch seconds, "rank", "node", "cpu_percent" (100: one
    core), "rss_bytes", "private_bytes" (no mapped files), "gpus": [{"index", "utilisation" (0 to 1), "memory_bytes",
    "memory_total_bytes", "power_watts", "temperature_c"}], "samples_per_second", "data_wait" (share of the time), "step", "loss"}.
    """
    place = place_here()
    out.mkdir(parents=True, exist_ok=True)
    path = out / ("telemetry.jsonl" if place.rank == 0 else f"telemetry-{place.rank:05d}.jsonl")
    sampler = _Sampler(path, place=place, figures=figures)
    done = threading.Event()
    thread = threading.Thread(target=sampler.run, args=(done, every_seconds), name="telemetry", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join(_LAST_SAMPLE_SECONDS)


@dataclass(frozen=True)
class Place:
    """Where this process stands among those of its training, and the GPUs it may see (None: all).

    `restarts` counts how often torchrun started its workers again.
    """

    rank: int
    size: int
    restarts: int
    local_rank: int
    local_size: int
    node: int
    visible: str | None


def place_here() -> Place:
    """Read what torchrun and CUDA set for this process; alone, it is rank 0 of 1."""
    told = os.environ

    def number(name: str, otherwise: int) -> int:
        return int(told.get(name) or otherwise)

    return Place(
        rank=number("RANK", 0),
        size=number("WORLD_SIZE", 1),
        restarts=number("TORCHELASTIC_RESTART_COUNT", 0),
        local_rank=number("LOCAL_RANK", 0),
        local_size=number("LOCAL_WORLD_SIZE", 1),
        node=number("GROUP_RANK", 0),
        visible=told.get("CUDA_VISIBLE_DEVICES"),
    )


class _Sampler:
    def __init__(self, path: Path, *, place: Place, figures: Figures) -> None:
        self._path, self._place, self._figures = path, place, figures
        self._before: tuple[float, float, int, float] | None = None

    def run(self, done: threading.Event, seconds: float) -> None:
        """Sample until told to end, and once more then: a training shorter than the rhythm leaves its figures too."""
        read_process = _process_reader()
        gpus = _Gpus(self._place)
        self._sample(read_process(), [])  # differences need a first reading
        while not done.wait(seconds):
            self._write(self._sample(read_process(), gpus.read()))
        self._write(self._sample(read_process(), gpus.read()))

    def _sample(self, process: _Process, gpus: list[dict[str, float | None]]) -> dict[str, Any]:
        now, figures = time.monotonic(), self._figures
        samples, waited, loss = figures.samples, figures.waited_seconds, figures.loss
        then, cpu, samples_then, waited_then = self._before or (now, process.cpu_seconds, samples, waited)
        self._before = (now, process.cpu_seconds, samples, waited)
        passed = max(now - then, 1e-9)
        learning = samples > 0
        return {
            "at": round(time.time(), 3), "rank": self._place.rank, "node": self._place.node,
            "cpu_percent": round(100 * (process.cpu_seconds - cpu) / passed, 1),
            "rss_bytes": process.rss_bytes, "private_bytes": process.private_bytes, "gpus": gpus,
            "samples_per_second": round((samples - samples_then) / passed, 1) if learning else None,
            "data_wait": round(min(1.0, (waited - waited_then) / passed), 4) if learning else None,
            "step": figures.step, "loss": loss if loss is not None and math.isfinite(loss) else None,
        }  # fmt: skip

    def _write(self, line: dict[str, Any]) -> None:
        with contextlib.suppress(OSError), self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


@dataclass(frozen=True)
class _Process:
    cpu_seconds: float
    rss_bytes: int
    private_bytes: int | None


def _process_reader() -> Callable[[], _Process]:
    """Choose how this process's CPU and memory are read: psutil, else /proc, else what getrusage(2) says (the peak alone)."""
    try:
        import psutil
    except ModuleNotFoundError:
        return _read_statm if Path("/proc/self/statm").exists() else _read_usage
    process = psutil.Process()

    def read() -> _Process:
        cpu, memory = process.cpu_times(), process.memory_info()
        shared = getattr(memory, "shared", None)  # Linux alone has it: pages of mapped files and shared memory
        return _Process(cpu.user + cpu.system, memory.rss, None if shared is None else memory.rss - shared)

    return read


def _read_statm() -> _Process:
    page = resource.getpagesize()
    _, resident, shared, *_ = (int(text) for text in Path("/proc/self/statm").read_text().split())  # proc(5), in pages
    return _Process(time.process_time(), resident * page, (resident - shared) * page)


def _read_usage() -> _Process:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return _Process(time.process_time(), peak if sys.platform == "darwin" else peak * 1024, None)


class _Gpus:
    """The GPUs that this process answers for: its share of those that CUDA lets its node's processes see."""

    def __init__(self, place: Place) -> None:
        self._devices: list[tuple[int, Any]] = []
        try:
            import pynvml
        except ModuleNotFoundError:
            return
        self._nvml: Any = pynvml
        try:
            pynvml.nvmlInit()
            devices = list(self._find(place.visible))
        except pynvml.NVMLError:  # no driver, or none that answers: a machine without GPUs to watch
            return
        self._devices = devices[place.local_rank :: place.local_size]

    def _find(self, visible: str | None) -> Iterator[tuple[int, Any]]:
        """Yield index and handle of each device in CUDA's order; like CUDA, stop at the first entry that names none.

        Numbers are taken as NVML counts them (by PCI bus); CUDA counts so too where the GPUs of a machine are alike, or where
        CUDA_DEVICE_ORDER=PCI_BUS_ID. A UUID (`GPU-...`, `MIG-...`) may be cut short, as CUDA allows.
        """
        nvml = self._nvml
        count = nvml.nvmlDeviceGetCount()
        entries = [str(index) for index in range(count)] if visible is None else [text.strip() for text in visible.split(",")]
        for place, entry in enumerate(entries):
            if entry.isdecimal() and int(entry) < count:
                yield int(entry), nvml.nvmlDeviceGetHandleByIndex(int(entry))
            elif entry.startswith("MIG-"):
                yield place, nvml.nvmlDeviceGetHandleByUUID(entry)
            elif entry.startswith("GPU-"):
                handles = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(count)]
                found = [index for index, handle in enumerate(handles) if nvml.nvmlDeviceGetUUID(handle).startswith(entry)]
                if len(found) != 1:
                    return
                yield found[0], handles[found[0]]
            else:
                return

    def read(self) -> list[dict[str, float | None]]:
        """Figures of each device now; what a device does not tell (not supported, GPU lost) is None."""
        return [self._read_one(index, handle) for index, handle in self._devices]

    def _read_one(self, index: int, handle: Any) -> dict[str, float | None]:
        nvml = self._nvml
        memory = self._ask(lambda: nvml.nvmlDeviceGetMemoryInfo(handle))
        return {
            "index": index,
            "utilisation": self._ask(lambda: nvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100),
            "memory_bytes": None if memory is None else memory.used,
            "memory_total_bytes": None if memory is None else memory.total,
            "power_watts": self._ask(lambda: nvml.nvmlDeviceGetPowerUsage(handle) / 1000),
            "temperature_c": self._ask(lambda: nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU)),
        }

    def _ask(self, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except self._nvml.NVMLError:
            return None
