"""Samples of a training's machines: one line of telemetry.jsonl each, read once or as they come, and summed up."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from platform_assets.specs.record_json import read_record
from platform_assets.specs.spending import Used

FILES = "telemetry*.jsonl"


@dataclass(frozen=True)
class Gpu:
    """Figures of one GPU; None is what it did not tell."""

    index: int
    utilisation: float | None
    memory_bytes: int | None
    memory_total_bytes: int | None
    power_watts: float | None
    temperature_c: float | None


@dataclass(frozen=True)
class Sample:
    """One process of a training at one time (epoch seconds). `cpu_percent` 100 is one core; `data_wait` is a share of the time."""

    at: float
    rank: int
    node: int
    cpu_percent: float
    rss_bytes: int
    private_bytes: int | None
    gpus: tuple[Gpu, ...]
    samples_per_second: float | None
    data_wait: float | None
    step: int
    loss: float | None


class SampleReader:
    """Reads the lines that came since it was last asked; a line half written is left for the next time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read: dict[Path, int] = {}

    def new(self) -> list[Sample]:
        """Samples of all ranks since the last call, in order of time."""
        found: list[Sample] = []
        for path in sorted(self._folder.glob(FILES)):
            start = self._read.get(path, 0)
            with path.open("rb") as file:
                file.seek(start)
                whole, _, _ = file.read().rpartition(b"\n")
            if whole:
                self._read[path] = start + len(whole) + 1
                found += [sample for line in whole.splitlines() if (sample := _parse(line)) is not None]
        return sorted(found, key=lambda sample: sample.at)


def read_samples(folder: Path) -> list[Sample]:
    """Every sample of a training folder, in order of time; none where nothing was sampled."""
    return SampleReader(folder).new()


def _parse(line: bytes) -> Sample | None:
    try:
        return read_record(Sample, line)
    except ValueError:  # a line cut off by a kill, with the next attempt's first line after it
        return None


def sum_up(samples: Sequence[Sample]) -> Used | None:
    """What was used over all samples (in order of time); None where there are none. Processes of a node are added up."""
    if not samples:
        return None
    nodes = sorted({sample.node for sample in samples})
    cores = {node: _per_moment([s for s in samples if s.node == node], "cpu_percent", scale=0.01) for node in nodes}
    peaks = {node: _peak(s for s in samples if s.node == node) for node in nodes}
    busiest = max(nodes, key=lambda node: _quantile(cores[node], 0.95))
    gpus = [(sample.node, gpu) for sample in samples for gpu in sample.gpus]
    utilisations = [gpu.utilisation for _, gpu in gpus if gpu.utilisation is not None]
    memories = [gpu.memory_bytes for _, gpu in gpus if gpu.memory_bytes is not None]
    waits = [sample.data_wait for sample in samples if sample.data_wait is not None]
    return Used(
        peak_rss_bytes=max(rss for _, rss in peaks.values()), peak_memory_bytes=max(private for private, _ in peaks.values()),
        cpu_cores_mean=fmean(cores[busiest]), cpu_cores_p95=_quantile(cores[busiest], 0.95),
        gpus=len({(node, gpu.index) for node, gpu in gpus}), gpu_utilisation=fmean(utilisations) if utilisations else None,
        peak_gpu_memory_bytes=max(memories, default=None), data_wait=fmean(waits) if waits else None,
        seconds=samples[-1].at - samples[0].at,
    )  # fmt: skip


def samples_per_second(samples: Sequence[Sample]) -> float | None:
    """Rows learned from each second, all processes together, mean over the time in which they learned; None where nobody counted."""
    rates = _per_moment(samples, "samples_per_second")
    return fmean(rates) if rates else None


def _per_moment(samples: Iterable[Sample], figure: str, *, scale: float = 1.0) -> list[float]:
    """Sums over ranks, one a round of samples: each rank's n-th sample falls into the same round, whatever their clocks' offset."""
    rounds: dict[int, float] = {}
    counts: dict[int, int] = {}
    for sample in samples:
        value = getattr(sample, figure)
        if value is not None:
            place = counts.get(sample.rank, 0)
            counts[sample.rank] = place + 1
            rounds[place] = rounds.get(place, 0.0) + value * scale
    return list(rounds.values())


def _peak(samples: Iterable[Sample]) -> tuple[int, int]:
    """Highest private and resident bytes of a node: the sum of its processes' own peaks, which is never too low."""
    private: dict[int, int] = {}
    resident: dict[int, int] = {}
    for sample in samples:
        own = sample.rss_bytes if sample.private_bytes is None else sample.private_bytes
        private[sample.rank] = max(private.get(sample.rank, 0), own)
        resident[sample.rank] = max(resident.get(sample.rank, 0), sample.rss_bytes)
    return sum(private.values()), sum(resident.values())


def _quantile(values: Sequence[float], share: float) -> float:
    """Smallest value that `share` of the values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]
