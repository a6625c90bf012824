"""Pictures of a dataset for the asset's page, as PNG bytes. No file is written here."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    from platform_assets.specs.dataset import DatasetSpec

BINS = 40
SHOWN_CLASSES = 10


def draw_target_over_time(rows: pa.Table, *, spec: DatasetSpec) -> bytes:
    """Draw rows per bin of event time, and the target over it: its mean, or for text the shares of its classes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.2), layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlabel(spec.event_time)
    axes.set_ylabel("rows")
    axes.set_title(spec.name)
    dated = rows.filter(pc.is_valid(rows[spec.event_time]))
    if dated.num_rows:
        times = dated[spec.event_time].to_numpy()
        edges = np.linspace(times.min().astype("int64"), times.max().astype("int64") + 1, BINS + 1)
        place = np.clip(np.searchsorted(edges, times.astype("int64"), side="right") - 1, 0, BINS - 1)
        middles = ((edges[:-1] + edges[1:]) / 2).astype("int64").astype("datetime64[us]")
        axes.bar(middles, np.bincount(place, minlength=BINS), width=(middles[1] - middles[0]) * 0.9, color="#c9d6df")
        if spec.label is not None:
            _draw_target(axes.twinx(), dated[spec.label.column], middles=middles, place=place, name=spec.label.column)
    figure.autofmt_xdate()
    out = io.BytesIO()
    FigureCanvasAgg(figure).print_png(out)
    return out.getvalue()


def _draw_target(axes: object, target: pa.ChunkedArray, *, middles: np.ndarray, place: np.ndarray, name: str) -> None:
    known = pc.is_valid(target).to_numpy()
    totals = np.bincount(place[known], minlength=BINS)
    values = target.filter(pc.is_valid(target))
    if pa.types.is_string(target.type):
        counted = values.value_counts()
        largest = (
            counted.take(pc.array_sort_indices(counted.field("counts"), order="descending")).field("values").to_pylist()[:SHOWN_CLASSES]
        )
        series = {f"{name} = {value}": pc.equal(values, value).to_numpy().astype(float) for value in sorted(largest)}
    else:
        series = {f"mean of {name}": values.cast(pa.float64()).to_numpy()}
    for label, numbers in series.items():
        sums = np.bincount(place[known], weights=numbers, minlength=BINS)
        means = np.divide(sums, totals, out=np.full(BINS, np.nan), where=totals > 0)
        axes.plot(middles, means, marker=".", linewidth=1, label=label)  # type: ignore[attr-defined]
    axes.legend(loc="upper left", fontsize="small")  # type: ignore[attr-defined]
