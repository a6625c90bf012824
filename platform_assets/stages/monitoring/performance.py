"""How good a window's answers turned out to be, once labels are known, against what the release promised on its holdout."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from platform_assets.measures import HIGHER_IS_BETTER, METRICS, measure
from platform_assets.specs.records import WindowPerformance

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyarrow as pa

    from platform_assets.stages.monitoring.drift import Window

FEWEST_LABELLED = 200
_LABELLED_SHARE = 0.9  # early labels are selected (the shortest lead times come first): most must be in before a window is judged


def measure_window(rows: pa.Table, *, window: Window, classes: Sequence[str], kind: str, promised: float, drop: float) -> WindowPerformance:
    """Hold the leading metric of a window's labelled rows (`probabilities`, `actual`) against the `promised` one of the holdout.

    It counts as dropped only once at least 90 % of the rows, and 200, have their label, since early labels are a selection.
    """
    metric = METRICS[kind][0]
    places = {name: place for place, name in enumerate(classes)}
    labelled = [
        (places[actual], shares)
        for actual, shares in zip(rows["actual"].to_pylist(), rows["probabilities"].to_pylist(), strict=True)
        if actual in places
    ]
    value, error = None, None
    if labelled:
        labels, shares = (np.array(part) for part in zip(*labelled, strict=True))
        value = measure(labels, probabilities=shares, kind=kind).get(metric)
        error = None if value is None else _error(value, labels, metric=metric)
    settled = len(labelled) >= max(min(FEWEST_LABELLED, rows.num_rows), _LABELLED_SHARE * rows.num_rows)
    loss = 0.0 if value is None else (promised - value) * (1 if HIGHER_IS_BETTER[metric] else -1)
    dropped = settled and loss > drop
    found = "no label is known yet" if value is None else f"{metric} {value:.3f} on {len(labelled)} labelled rows, promised {promised:.3f}"
    return WindowPerformance(
        window=window.index,
        last_event=str(rows["event_time"][-1].as_py()),
        rows=rows.num_rows,
        labelled=len(labelled),
        metric=metric,
        value=value,
        promised=promised,
        settled=settled,
        dropped=dropped,
        sentence=f"window {window.index}: {found}{'; that is a drop' if dropped else ''}",
        error=error,
    )


def _error(value: float, labels: np.ndarray, *, metric: str) -> float:
    """Standard error of a share; of AUROC the most that it can be (Birnbaum and Klose 1957): that of a share of the rarer class."""
    rows = int(np.bincount(labels, minlength=2).min()) if metric == "auroc" else len(labels)
    return float(np.sqrt(value * (1 - value) / rows))
