"""One window of the production log against a release's reference. Asking for a retraining is another stage's decision."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from platform_assets.specs.records import ColumnDrift, WindowReport
from platform_assets.stages.monitoring.dependence import ODD, Dependence, differences, encode, measure_moments, pair_places, score_rows
from platform_assets.stages.monitoring.embedding import embed_rows
from platform_assets.stages.monitoring.evidence import QUALITY, Found, weigh_signal
from platform_assets.stages.monitoring.reference import (
    LEANS_ON,
    TOGETHER,
    Reference,
    floor_of,
    layers_of,
    leans,
    margin_layer,
    pair_importance,
)
from platform_assets.stages.monitoring.season import phases_of, shares_of
from platform_assets.stages.monitoring.signals import LABEL, span_of, take_labels, take_signals
from platform_assets.stages.monitoring.sketch import Summary, sketch_signals, summarise
from platform_assets.stages.monitoring.statistics import surge_p_value

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pyarrow as pa

    from platform_assets.specs.model import MonitoringSpec
    from platform_assets.specs.records import FeatureSchema
    from platform_assets.stages.monitoring.sketch import Sketch

_MOST_PAIRS = 5  # of columns that are told
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
    probabilities: np.ndarray | None,
    importance: Mapping[str, float] | None,
    spec: MonitoringSpec,
    model: bytes | None = None,
) -> WindowReport:
    """Hold one window, in event order, against a reference; see `report_sketch`. `model`: the reference's, for a network's embeddings."""
    rows = embed_rows(rows, reference.embeddings, schema=schema, model=model)
    signals = take_signals(rows, schema=schema, probabilities=probabilities, tokeniser=reference.tokeniser)
    sketch = sketch_signals(signals, seed=window.index)
    shares = shares_of(phases_of(rows[schema.event_time], reference.season)) if reference.season and rows.num_rows else {}
    between = span_of(rows, schema=schema)
    return report_sketch(reference, sketch, window=window, between=between, importance=importance, spec=spec, shares=shares)


def report_sketch(
    reference: Reference,
    sketch: Sketch,
    *,
    window: Window,
    between: tuple[str, str],
    importance: Mapping[str, float] | None,
    spec: MonitoringSpec,
    shares: Mapping[int, float] | None = None,
) -> WindowReport:
    """Hold the merged sketch of a window's batches against a reference; `between`: its first and last event.

    `shares`: of its rows in each phase of the reference's season, whose like period it is then held against.

    A finding is drift when its p-value, corrected for all tests of its layer, is under `significance` and its effect above both
    `min_effect` and what the training data's own blocks showed, times the margin that keeps the declared rate. The window drifts when the
    model's answers do, or inputs that together hold at least LEANS_ON of the total `importance` (feature to share; None: all count).
    """
    now = summarise(sketch)
    past = {name: summary for name, summary in reference.like(shares or {}).items() if name in now}
    findings = [finding for name, summary in past.items() for finding in weigh_signal(summary, now[name])]
    columns = [_judge(finding, reference, tests=len(past), importance=importance, spec=spec) for finding in findings]
    told = [column for column in columns if column.drifted or column.layer in ("column", "answer")]
    if reference.dependence is not None and sketch.rows:
        told += _judge_rows(reference, reference.dependence, sketch, importance=importance, spec=spec)
    drifted = _weigh(told) >= LEANS_ON
    return WindowReport(
        window=window.index,
        first_row=window.first_row,
        last_row=window.last_row,
        first_event=between[0],
        last_event=between[1],
        versions=window.versions,
        columns=tuple(told),
        drifted=drifted,
        evidence=_say(window, told, drifted=drifted),
        declared_rate=spec.false_alarms,
    )


def judge_labels(reference: Reference, labels: pa.ChunkedArray, *, spec: MonitoringSpec) -> ColumnDrift | None:
    """Hold the outcomes of a window whose labels have come against those of the training rows; None where the release knows none."""
    past = next((summary for summary in reference.signals if summary.name == LABEL), None)
    if past is None:
        return None
    now = summarise(sketch_signals([take_labels(labels)], seed=0))[LABEL]
    finding = next(finding for finding in weigh_signal(past, now) if finding.layer == "label")
    return _judge(finding, reference, tests=1, importance=None, spec=spec)


def _judge(
    finding: Found, reference: Reference, *, tests: int, importance: Mapping[str, float] | None, spec: MonitoringSpec
) -> ColumnDrift:
    tests *= layers_of(reference.embeddings) * (len(QUALITY) if finding.layer == "quality" else 1)
    corrected = min(1.0, finding.p_value * tests)
    margin = reference.margins.get(margin_layer(finding.layer), 1.0)
    threshold = min(1.0, margin * max(floor_of(finding.layer, spec), reference.strayed.get(finding.name, 0.0)))
    return ColumnDrift(
        column=finding.name,
        statistic=finding.statistic,
        effect=finding.effect,
        p_value=corrected,
        threshold=threshold,
        drifted=corrected < spec.significance and finding.effect > threshold,
        importance=leans(finding.feature, importance),
        layer=finding.layer,
        feature=finding.feature,
        was=finding.was,
        now=finding.now,
    )


def _judge_rows(
    reference: Reference, past: Dependence, sketch: Sketch, *, importance: Mapping[str, float] | None, spec: MonitoringSpec
) -> list[ColumnDrift]:
    """Return what the sampled rows hold that does not go together: all columns together first, then the pairs of columns that moved."""
    summaries = {summary.name: summary for summary in reference.signals}
    coded = encode(sketch.sample, codes=past.codes, summaries=summaries)
    together = _judge_together(reference, past, coded, spec=spec)
    pairs = _judge_pairs(reference, past, coded, summaries=summaries, importance=importance, spec=spec)
    return [*([together] if together.drifted else []), *pairs]


def _judge_together(reference: Reference, past: Dependence, coded: np.ndarray, *, spec: MonitoringSpec) -> ColumnDrift:
    weights = np.array(past.weights).reshape(len(past.scored), -1)
    scores = score_rows(coded, scales=np.array(past.scales), scored=past.scored, weights=weights)
    odd = int((scores < past.odd_below).sum())
    effect = max(0.0, odd / len(scores) - ODD)
    p_value = min(
        1.0, layers_of(reference.embeddings) * surge_p_value(odd, len(scores), before=round(ODD * past.rows), before_rows=past.rows)
    )
    threshold = min(1.0, reference.margins.get(TOGETHER, 1.0) * max(spec.min_effect, past.odd_strayed))
    return ColumnDrift(
        "all columns together", "odd rows", effect, p_value, threshold,
        drifted=p_value < spec.significance and effect > threshold, importance=1.0, layer="joint",
        was=f"odd rows {ODD:.1%}", now=f"odd rows {odd / len(scores):.1%}",
    )  # fmt: skip


def _judge_pairs(
    reference: Reference,
    past: Dependence,
    coded: np.ndarray,
    *,
    summaries: Mapping[str, Summary],
    importance: Mapping[str, float] | None,
    spec: MonitoringSpec,
) -> list[ColumnDrift]:
    """Return the pairs of columns that say something else together than they did, those that the model leans on first."""
    places = pair_places(past.codes)
    now = measure_moments(coded, scales=np.array(past.scales))
    effects, p_values = differences(past, now, places=places)
    corrected = np.minimum(1.0, p_values * len(effects) * layers_of(reference.embeddings))
    margin = reference.margins.get("joint", 1.0)
    thresholds = np.minimum(1.0, margin * np.maximum(spec.min_effect, np.asarray(past.strayed)))
    weights = pair_importance(past.codes, places, summaries=summaries, importance=importance)
    moved = np.flatnonzero((corrected < spec.significance) & (effects > thresholds))
    order = moved[np.lexsort((-effects[moved] / thresholds[moved], -weights[moved]))]
    told: dict[str, ColumnDrift] = {}
    for pair in order:
        one, other = (past.codes[place[pair]].signal for place in places)
        name = f"{one} with {other}"
        if name in told:
            continue
        if len(told) == _MOST_PAIRS:
            break
        least = min((one, other), key=lambda signal: leans(summaries[signal].feature, importance))
        told[name] = ColumnDrift(
            name, "correlation", float(effects[pair]), float(corrected[pair]), float(thresholds[pair]), drifted=True,
            importance=float(weights[pair]), layer="joint", feature=summaries[least].feature,
            was=f"correlation {past.covariance[pair]:.2f}", now=f"correlation {now.covariance[places[0][pair], places[1][pair]]:.2f}",
        )  # fmt: skip
    return list(told.values())


def _weigh(columns: Sequence[ColumnDrift]) -> float:
    """Return what share of the model's leaning has moved: all of it with its answers, else each feature once, and the heaviest pair."""
    moved = [column for column in columns if column.drifted]
    if any(not column.feature for column in moved):  # answers, and all columns together
        return 1.0
    alone = {column.feature: column.importance for column in moved if column.layer != "joint"}
    return max(sum(alone.values()), max((column.importance for column in moved if column.layer == "joint"), default=0.0))


def _say(window: Window, columns: Sequence[ColumnDrift], *, drifted: bool) -> str:
    place = f"window {window.index} (rows {window.first_row} to {window.last_row})"
    moved = [column for column in columns if column.drifted]
    if not moved:
        return f"{place}: no drift"
    if not drifted:
        return f"{place}: no drift that the model leans on; moved: {', '.join(column.column for column in moved)}"
    counted = [column for column in moved if column.importance]
    strongest = sorted(counted, key=lambda column: (column.importance < LEANS_ON, column.threshold - column.effect))
    parts = [
        f"{column.column} by {column.effect:.2f} ({column.statistic}, threshold {column.threshold:.2f})" for column in strongest[:_NAMED]
    ]
    more = f" and {len(strongest) - _NAMED} more" if len(strongest) > _NAMED else ""
    return f"{place}: moved are {', '.join(parts)}{more}"
