"""One figure of a whole training as PNG bytes: loss, throughput, data wait, how busy its cores and GPUs were, memory, power and heat."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from platform_assets.stages.telemetry.samples import Gpu, Sample

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Lines = NDArray[np.float64]

INK, WATER, SAND = "#22313a", "#1f7a8c", "#c98b3b"
POINTS = 400  # more cannot be told apart on paper
_FEW = 20  # fewer are drawn as points too: a line of one of them is none
_COLUMNS = 3
_THOUSAND = 10_000.0
_GIB = 2**30
_UNITS = (("hours", 3600, 3 * 3600), ("minutes", 60, 180), ("seconds", 1, 0))  # name, seconds, used from that many seconds on
_GAP = 3.0  # times the usual distance of two samples: further apart, nothing was running


@dataclass(frozen=True)
class _Times:
    """Common points in time of all processes, in `unit` since the first sample."""

    grid: Lines
    unit: str
    start: float
    scale: float


def draw_telemetry(samples: Sequence[Sample]) -> bytes:
    """Draw what a training's samples (in order of time, at least one) say; processes are added up, GPUs shown as mean and range.

    A line breaks where nothing was running. What nobody measured (no GPU, no loss) has no panel.
    """
    ranks = [[sample for sample in samples if sample.rank == rank] for rank in sorted({sample.rank for sample in samples})]
    times = _times(samples, longest=max(len(rank) for rank in ranks))
    panels = [panel for panel in _panels(ranks, times) if any(not np.isnan(line.values).all() for line in panel.lines)]
    figure, axes = _figure(len(panels))
    marker = "." if len(times.grid) < _FEW else None
    for panel, one in zip(panels, axes, strict=True):
        for line in panel.lines:
            one.plot(times.grid, line.values, color=line.colour, label=line.label, linestyle=line.style, marker=marker)
            if line.low is not None:
                one.fill_between(times.grid, line.low, line.high, color=line.colour, alpha=0.2, linewidth=0)
        one.set_title(panel.title)
        drawn = [values for line in panel.lines for values in (line.values, line.high) if values is not None]
        highest = max(float(np.nanmax(values, initial=0.0)) for values in drawn)
        one.set_xlim(0, max(times.grid[-1], 1.0))
        labelled = len(panel.lines) > 1
        if panel.from_nothing:
            one.set_ylim(0, max(highest * (1.35 if labelled else 1.1), panel.at_least))
        one.yaxis.set_major_formatter(_thousands() if highest >= _THOUSAND else one.yaxis.get_major_formatter())
        if labelled:
            one.legend(frameon=False, fontsize=8, loc="upper left", ncols=2)
    figure.supxlabel(f"{times.unit} since the start", fontsize=10)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()


@dataclass(frozen=True)
class _Line:
    values: Lines
    colour: str
    label: str = ""
    style: str = "-"
    low: Lines | None = None
    high: Lines | None = None


@dataclass(frozen=True)
class _Panel:
    title: str
    lines: Sequence[_Line]
    from_nothing: bool = True
    at_least: float = 1e-9


Ranks = Sequence[Sequence[Sample]]


def _panels(ranks: Ranks, times: _Times) -> list[_Panel]:
    def each(figure: Callable[[Sample], float | None]) -> list[Lines]:
        return [_series(rank, times, figure) for rank in ranks]

    panels = [
        _Panel("Training loss", [_Line(_mean(each(lambda s: s.loss)), SAND)], from_nothing=False),
        _Panel("Rows a second", [_Line(_sum(each(lambda s: s.samples_per_second)), WATER)]),
        _Panel("Waiting for data, % of the time", [_Line(100 * _mean(each(lambda s: s.data_wait)), SAND)], at_least=5.0),
        _Panel("Cores in use", [_Line(_sum(each(lambda s: s.cpu_percent)) / 100, INK)], at_least=1.0),
        _Panel("Memory, GiB", [
            _Line(_sum(each(lambda s: s.rss_bytes)) / _GIB, SAND, "resident"),
            _Line(_sum(each(lambda s: s.private_bytes)) / _GIB, INK, "without mapped files"),
        ]),
    ]  # fmt: skip
    if not any(sample.gpus for rank in ranks for sample in rank):
        return panels
    total = [one / _GIB for one in _gpu_series(ranks, times, lambda gpu: gpu.memory_total_bytes)]
    busy = [100 * one for one in _gpu_series(ranks, times, lambda g: g.utilisation)]
    return [
        *panels,
        _Panel("GPU at work, % of the time", [_range(busy, WATER)], at_least=100),
        _Panel("Memory of a GPU, GiB", [
            _range([one / _GIB for one in _gpu_series(ranks, times, lambda g: g.memory_bytes)], WATER, "used"),
            _Line(_mean(total), SAND, "there is", ":"),
        ]),
        _Panel("Power of a GPU, watts", [_range(_gpu_series(ranks, times, lambda g: g.power_watts), INK)]),
        _Panel("Temperature of a GPU, degrees C", [_range(_gpu_series(ranks, times, lambda g: g.temperature_c), SAND)]),
    ]  # fmt: skip


def _range(lines: Sequence[Lines], colour: str, label: str = "") -> _Line:
    """Mean over GPUs, with the range from the lowest to the highest where there are several."""
    if len(lines) == 1:
        return _Line(lines[0], colour, label)
    with _no_warning():
        return _Line(_mean(lines), colour, label, low=np.nanmin(lines, axis=0), high=np.nanmax(lines, axis=0))


def _times(samples: Sequence[Sample], *, longest: int) -> _Times:
    start, span = samples[0].at, samples[-1].at - samples[0].at
    unit, scale = next((unit, scale) for unit, scale, least in _UNITS if span >= least)
    return _Times(np.linspace(0.0, span, max(2, min(POINTS, longest))) / scale, unit, start, scale)


def _series(rank: Sequence[Sample], times: _Times, figure: Callable[[Sample], float | None]) -> Lines:
    """One process's figure on the common points: means of neighbours where there are more than can be drawn, NaN where it was away."""
    told = [(sample.at, value) for sample in rank if (value := figure(sample)) is not None]
    if not told:
        return np.full_like(times.grid, np.nan)
    at, values = np.array(told, dtype=np.float64).T
    if len(at) > POINTS:
        at, values = _thin(at, values)
    place = (at - times.start) / times.scale
    line = np.interp(times.grid, place, values)
    apart = np.median(np.diff(place)) if len(place) > 1 else 0.0
    near = (times.grid[1] - times.grid[0]) / 2 + 1e-9
    nearest = np.abs(times.grid[:, None] - place[None, :]).min(axis=1)
    away = nearest > max(_GAP * apart / 2, near)
    line[away | (times.grid < place[0] - near) | (times.grid > place[-1] + near)] = np.nan
    return line


def _thin(at: Lines, values: Lines) -> tuple[Lines, Lines]:
    """Means over spans of equal length: none of them reaches over a gap but the two at its ends."""
    span = np.minimum(((at - at[0]) / max(at[-1] - at[0], 1e-9) * POINTS).astype(int), POINTS - 1)
    counts = np.bincount(span, minlength=POINTS)
    held = counts > 0
    thinned = [np.bincount(span, weights=one, minlength=POINTS)[held] / counts[held] for one in (at, values)]
    return thinned[0], thinned[1]


def _gpu_series(ranks: Ranks, times: _Times, figure: Callable[[Gpu], float | None]) -> list[Lines]:
    devices = sorted({(rank[0].rank, gpu.index) for rank in ranks for sample in rank for gpu in sample.gpus})

    def of(sample: Sample, index: int) -> float | None:
        return next((figure(gpu) for gpu in sample.gpus if gpu.index == index), None)

    by_rank = {rank[0].rank: rank for rank in ranks}
    return [_series(by_rank[rank], times, lambda sample, index=index: of(sample, index)) for rank, index in devices]  # type: ignore[misc]


def _no_warning() -> warnings.catch_warnings[None]:
    """Points in time at which nobody was running have no mean, which numpy warns of."""
    return warnings.catch_warnings(action="ignore", category=RuntimeWarning)


def _mean(lines: Sequence[Lines]) -> Lines:
    with _no_warning():
        return np.nanmean(np.stack(lines), axis=0)


def _sum(lines: Sequence[Lines]) -> Lines:
    """Sum over processes; NaN only where none was there."""
    stacked = np.stack(lines)
    return np.where(np.isnan(stacked).all(axis=0), np.nan, np.nansum(stacked, axis=0))


def _figure(panels: int) -> tuple[Any, list[Any]]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(panels, _COLUMNS)
    rows = -(-panels // columns)
    figure = Figure(figsize=(4.3 * columns, 2.4 * rows + 0.3), layout="constrained")
    FigureCanvasAgg(figure)
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for spare in axes[panels:]:
        spare.remove()
    for one in axes[:panels]:
        one.spines[["top", "right"]].set_visible(False)
        one.title.set_fontsize(10)
        one.tick_params(labelsize=8)
    return figure, axes[:panels]


def _thousands() -> Any:
    from matplotlib.ticker import EngFormatter

    return EngFormatter(sep="")
