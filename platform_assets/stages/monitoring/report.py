"""The drift report of a model, window after window: those already reported stay as they are, new ones are added."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

from platform_assets.specs.record_json import read_record
from platform_assets.specs.records import DriftReport, FeatureSchema, WindowPerformance
from platform_assets.stages.monitoring.drift import judge_labels, report_window
from platform_assets.stages.monitoring.estimate import estimate_window
from platform_assets.stages.monitoring.log import cut_windows, stack_probabilities, unpack_inputs
from platform_assets.stages.monitoring.performance import measure_window
from platform_assets.stages.monitoring.profile import read_profile

if TYPE_CHECKING:
    import pyarrow as pa

    from platform_assets.manifests import ReleaseFiles
    from platform_assets.specs.feed import FeedReport
    from platform_assets.specs.model import ModelSpec


def extend_report(previous: DriftReport | None, *, log: pa.Table, bundle: ReleaseFiles, model: ModelSpec, feed: FeedReport) -> DriftReport:
    """Hold every window that is not in `previous` yet against the live release's profile; measure those whose labels came in.

    `log`: the production log with `actual`; `bundle`: the release that is live; `feed`: of this log, whose windows these are.
    """
    spec = model.monitoring
    schema = read_record(FeatureSchema, bundle["schema.json"])
    profile = read_profile(bundle)
    promised = json.loads(bundle["metrics.json"])["holdout"][model.leading_metric]
    windows = list(previous.windows) if previous else []
    estimates = list(previous.estimates) if previous else []
    measured = {figures.window: figures for figures in previous.performance} if previous else {}
    for window, rows in cut_windows(log, window_rows=spec.window_rows, feed=feed):
        if not rows.num_rows:
            continue  # all of it was erased since
        if window.index >= len(windows):
            probabilities = stack_probabilities(rows)
            inputs = unpack_inputs(rows, schema=schema)
            windows.append(
                report_window(
                    profile.reference,
                    inputs,
                    window=window,
                    schema=schema,
                    probabilities=probabilities,
                    importance=profile.importance,
                    spec=spec,
                    model=bundle["model.onnx"] if profile.reference.embeddings else None,
                )
            )
            # another release's confidence is worth something else
            if profile.calibration is not None and window.versions == (bundle.version,):
                estimate = estimate_window(
                    probabilities, window=window, last_event=windows[-1].last_event, calibration=profile.calibration,
                    kind=model.target.kind, promised=promised, drop=spec.performance_drop,
                )  # fmt: skip
                estimates += [estimate] if estimate is not None else []
        known: WindowPerformance | None = measured.get(window.index)
        if known is None or not known.settled:
            figures = measure_window(
                rows,
                window=window,
                classes=schema.classes,
                kind=model.target.kind,
                promised=known.promised if known else promised,
                drop=spec.performance_drop,
            )
            # early labels are a selection, and so are their shares
            shift = judge_labels(profile.reference, rows["actual"], spec=spec) if figures.settled else None
            measured[window.index] = replace(figures, label_shift=shift)
    figures_by_window = tuple(measured[index] for index in sorted(measured))
    return DriftReport(tuple(windows), figures_by_window, tuple(estimates), previous.service if previous else ())
