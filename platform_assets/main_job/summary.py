"""What a main job comes to, as plain values: read from the instance, the tables and the ledger, nothing remembered on the side."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg

from platform_assets import keys
from platform_assets.components.step import latest_record
from platform_assets.measures import measure
from platform_assets.specs.candidates import SearchResult, Selection
from platform_assets.specs.dataset import DatasetSpec
from platform_assets.specs.model import ModelSpec
from platform_assets.specs.record_json import read_record
from platform_assets.specs.records import DriftPointer, FeatureSchema, GateVerdict, RetrainingVerdict, RolloutVerdict, Training
from resources.parts import Parts


def summarise_model(model: ModelSpec, dataset: DatasetSpec, parts: Parts, instance: dg.DagsterInstance, *, since: float) -> dict[str, Any]:
    """Return one model's row of the summary, with everything that the report draws from."""

    def newest(state: str, cls: type) -> Any:
        return latest_record(instance, keys.model_key(model.name, state), cls)

    training, verdict = newest("trained", Training), newest("rollout_verdict", RolloutVerdict)
    search, selection = newest("candidates", SearchResult), newest("selected", Selection)
    drift = newest("drift_report", DriftPointer)
    releases = [entry["detail"]["digest"] for entry in parts.audit.entries(subject=f"model/{model.name}") if entry["action"] == "release"]
    found_at = drift.first_drifted_row if drift else None
    log = read_log(model, parts)
    served = _metrics_of_periods(log, model, read_classes(parts, verdict), found_at=found_at)
    if served["metric_before"] is None and log is not None and log.num_rows:  # it had drifted from the first row on
        served["metric_before"] = _promised(parts, log.column("digest")[0].as_py(), model)
    return {
        "name": model.name,
        "live_version": verdict.live_digest[:12] if verdict else None,
        "releases": [digest[:12] for digest in dict.fromkeys(releases)],
        "leading_metric": model.leading_metric,
        "holdout": training.holdout if training else {},
        "baseline": training.baseline if training else {},
        "candidates": _candidates(model, search, selection),
        "drift_found_at_row": found_at,
        **served,
        "retrained": len(set(releases)) > 1,
        "rows_served": log.num_rows if log is not None else 0,
        "gate": getattr(newest("gate_verdict", GateVerdict), "sentence", None),
        "rollout": verdict.sentence if verdict else None,
        "retraining": getattr(newest("retraining_verdict", RetrainingVerdict), "sentence", None),
        "seconds": _seconds(parts, {model.name, dataset.name}, since=since),
    }


def _seconds(parts: Parts, names: set[str], *, since: float) -> dict[str, float]:
    """Seconds by stage; a dataset's steps stand under the model that they were taken for, or under its own name."""
    found: dict[str, float] = {}
    for row in parts.ledger.totals(since=since):
        if row["model"] in names:
            found[row["stage"]] = round(found.get(row["stage"], 0.0) + row["wall_seconds"], 2)
    return found


def _candidates(model: ModelSpec, search: SearchResult | None, selection: Selection | None) -> list[dict[str, Any]]:
    if search is None:
        return []
    why = {rejection.name: rejection.why for rejection in selection.rejected} if selection else {}
    chosen = selection.chosen.name if selection else None
    return [
        {
            "name": c.name, "metric": c.metrics[model.leading_metric], "size_bytes": c.size_bytes,
            "cpu_us_b1": c.cpu_us_b1, "cpu_us_b32": c.cpu_us_b32, "latency_ms_p50": c.latency_ms_p50, "latency_ms_p99": c.latency_ms_p99,
            "drop": c.drop, "aed_per_million": c.aed_per_million, "on_front": bool(selection and c.name in selection.front),
            "chosen": c.name == chosen,
            "why": "the cheapest within the declared limits" if c.name == chosen else why.get(c.name, "not on the front"),
        }
        for c in search.candidates
    ]  # fmt: skip


def read_log(model: ModelSpec, parts: Parts) -> Any:
    """Return the production log in the order of events; None before the first request."""
    pin = parts.tables.pin(keys.table_name(keys.model_key(model.name, "production_log")))
    return (
        parts.tables.read(pin).sort_by([("event_time", "ascending"), ("time", "ascending"), ("prediction_id", "ascending")])
        if pin
        else None
    )


def _metrics_of_periods(log: Any, model: ModelSpec, classes: Sequence[str], *, found_at: int | None) -> dict[str, float | None]:
    """Leading metric of the answers before the drift was found, from then until the new release answered, and after."""
    periods: dict[str, float | None] = {"metric_before": None, "metric_drifted": None, "metric_after": None}
    if log is None or not log.num_rows:
        return periods
    digests = log.column("digest").to_pylist()
    changed = next((row for row, digest in enumerate(digests) if digest != digests[0]), len(digests))
    start = min(found_at if found_at is not None else len(digests), changed)
    cuts = {"metric_before": (0, start), "metric_drifted": (start, changed), "metric_after": (changed, len(digests))}
    return {name: metric_of(log.slice(low, high - low), model, classes) for name, (low, high) in cuts.items()}


def metric_of(log: Any, model: ModelSpec, classes: Sequence[str]) -> float | None:
    """Leading metric over the rows whose outcome is known; None where it has no value (no rows, one class only)."""
    import numpy as np

    known = log.filter(log.column("actual").is_valid())
    if not known.num_rows:
        return None
    places = {label: place for place, label in enumerate(classes)}
    labels = np.array([places[label] for label in known.column("actual").to_pylist()])
    probabilities = np.array(known.column("probabilities").to_pylist(), dtype=np.float64)
    return measure(labels, probabilities=probabilities, kind=model.target.kind).get(model.leading_metric)


def _promised(parts: Parts, digest: str, model: ModelSpec) -> float:
    """Return what a release reached on its holdout: the last that was known of it before production."""
    metrics = json.loads(parts.releases.open(digest)["metrics.json"])
    return float(metrics["holdout"][model.leading_metric])


def read_classes(parts: Parts, verdict: RolloutVerdict | None) -> tuple[str, ...]:
    """Return the classes of the live release, in the order of its probabilities."""
    if verdict is None:
        return ()
    return read_record(FeatureSchema, parts.releases.open(verdict.live_digest)["schema.json"]).classes


def _resident_bytes(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except (OSError, ProcessLookupError):
        return 0  # it ended between the listing and the look
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)


@contextmanager
def peak_memory() -> Iterator[dict[str, int]]:
    """Sample the resident memory of this process and all it starts, twice a second; the peak stands in the yielded dict.

    Pages that processes share (libraries, forked memory) are counted once: proportional set size, Linux's smaps_rollup.
    """
    import psutil

    found, done = {"bytes": 0}, threading.Event()

    def sample() -> None:
        me = psutil.Process()
        while not done.wait(0.5):
            found["bytes"] = max(found["bytes"], sum(_resident_bytes(process.pid) for process in (me, *me.children(recursive=True))))

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        done.set()
        thread.join()
