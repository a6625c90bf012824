"""One window of the production log against a release's reference. Asking for a retraining is another stage's decision."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from platform_assets.specs.records import ColumnDrift, WindowReport
from platform_assets.stages.monitoring.reference import Reference, SignalReference, measure_effect, rank_missing_lowest
from platform_assets.stages.monitoring.signals import Signal, take_signals
from platform_assets.stages.monitoring.statistics import chi_squared_p_value, ks_p_value

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pyarrow as pa

    from platform_assets.specs.model import MonitoringSpec
    from platform_assets.specs.records import FeatureSchema

LEANS_ON = 0.05  # share of the total permutation importance from which a drifted input counts against the model
_STATISTICS = {"number": "ks", "category": "total_variation"}
_NAMED = 3


@dataclass(frozen=True)
class Window:
    """Rows `first_row` to `last_row` (both included, counted over the whole log) and the versions that answered them."""

    index: int
    first_row: int
    last_row: int
    versions: tuple[str, ...]


def report_window(
    reference: Reference,
    rows: pa.Table,
    *,
    window: Window,
    schema: FeatureSchema,
    probabilities: np.ndarray,
    importance: Mapping[str, float],
    spec: MonitoringSpec,
) -> WindowReport:
    """Hold one window, in event order, against a reference.

    A signal drifts when its Bonferroni-corrected p-value is under `significance` and its effect above both `min_effect` and what
    the training data's own blocks showed. The window drifts when the model's answers do, or an input with at least LEANS_ON
    of the total `importance` (feature to share).
    """
    signals = take_signals(rows, schema=schema, probabilities=probabilities, tokeniser=reference.tokeniser)
    known = {signal.name: signal for signal in reference.signals}
    pairs = [(known[signal.name], signal) for signal in signals if signal.name in known]
    columns = tuple(_compare(past, now, tests=len(pairs), importance=importance, spec=spec) for past, now in pairs)
    events = rows[schema.event_time]
    moved = [column for column in columns if column.drifted and column.importance >= LEANS_ON]
    return WindowReport(
        window=window.index,
        first_row=window.first_row,
        last_row=window.last_row,
        first_event=str(events[0].as_py()),
        last_event=str(events[-1].as_py()),
        versions=window.versions,
        columns=columns,
        drifted=bool(moved),
        evidence=_say(window, columns, moved),
    )


def _compare(past: SignalReference, now: Signal, *, tests: int, importance: Mapping[str, float], spec: MonitoringSpec) -> ColumnDrift:
    before, after = _cells(past, now)
    effect = measure_effect(past.kind, before, after)
    if past.kind == "category":
        p_value = chi_squared_p_value(before, after)
    else:
        p_value = ks_p_value(effect, reference_rows=past.rows, current_rows=len(now.values))
    corrected = min(1.0, p_value * tests)
    threshold = max(spec.min_effect, past.strayed)
    return ColumnDrift(
        column=past.name,
        statistic=_STATISTICS[past.kind],
        effect=effect,
        p_value=corrected,
        threshold=threshold,
        drifted=corrected < spec.significance and effect > threshold,
        importance=float(importance.get(past.feature, 0.0)) if past.feature else 1.0,
    )


def _cells(past: SignalReference, now: Signal) -> tuple[np.ndarray, np.ndarray]:
    """Counts of both over the same cells: categories with the new ones among them, or the distinct numbers in order."""
    if past.kind == "category":
        names, counts = np.unique(now.values.astype(str), return_counts=True)
        found = dict(zip(names.tolist(), counts.tolist(), strict=True))
        cells = sorted({*past.counts, *found})
        return np.array([past.counts.get(cell, 0) for cell in cells]), np.array([found.get(cell, 0) for cell in cells])
    before = np.array([-np.inf if value is None else value for value in past.quantiles])
    after = rank_missing_lowest(now.values)
    values, places = np.unique(np.concatenate([before, after]), return_inverse=True)
    return np.bincount(places[: len(before)], minlength=len(values)), np.bincount(places[len(before) :], minlength=len(values))


def _say(window: Window, columns: Sequence[ColumnDrift], moved: Sequence[ColumnDrift]) -> str:
    place = f"window {window.index} (rows {window.first_row} to {window.last_row})"
    if not moved:
        quiet = ", ".join(column.column for column in columns if column.drifted)
        return f"{place}: no drift that the model leans on; moved: {quiet}" if quiet else f"{place}: no drift"
    strongest = sorted(moved, key=lambda column: column.threshold - column.effect)[:_NAMED]
    parts = [f"{column.column} by {column.effect:.2f} ({column.statistic}, threshold {column.threshold:.2f})" for column in strongest]
    more = f" and {len(moved) - _NAMED} more" if len(moved) > _NAMED else ""
    return f"{place}: moved are {', '.join(parts)}{more}"
