"""The loop of one model: history trained and released, live events answered, drift found, retraining asked, rolled out."""

from __future__ import annotations

import json
import time
from datetime import datetime

import dagster as dg

from platform_assets import keys
from platform_assets.components.monitoring_steps import take_segments
from platform_assets.components.retraining_history import close_retraining
from platform_assets.components.step import fingerprint, latest_record
from platform_assets.errors import ServingError
from platform_assets.main_job.jobs import Jobs
from platform_assets.main_job.releases import recorded_live
from platform_assets.main_job.traffic import REQUEST_ROWS, Stream
from platform_assets.specs.dataset import AggregatesView, DatasetSpec
from platform_assets.specs.model import ModelSpec
from platform_assets.specs.records import GateVerdict, RetrainingVerdict, RolloutVerdict
from resources.parts import Parts
from resources.serving import PredictClient

_RETRAINING_SECONDS = 1200.0  # a training, and a rollout that runs into its timeout of ten minutes
_LAST_LOOK_SECONDS = 5.0
_ROLLOUT_ROWS = 100  # sent one by one: a rollout counts requests


def close_cut_off(model: ModelSpec, dataset: DatasetSpec, parts: Parts) -> None:
    """Close a retraining whose run died with an earlier main job, so that the same evidence may ask for it anew."""
    why = "the main job that followed it was cut off"
    close_retraining(parts, model.name, outcome="cut_off", why=why, at=parts.clock.now(dataset.name))


def settle(model: ModelSpec, parts: Parts) -> None:
    """Undo a rollout that a killed main job left half done: what has no verdict in the audit log did not happen."""
    recorded, found = recorded_live(parts.audit, model.name), parts.serving.status(model.name)
    if recorded is None or (found["live"] == recorded and found["challenger"] is None):
        return
    parts.serving.load(model.name, recorded)
    parts.serving.set_traffic(model.name, live=recorded)
    detail = {"live": recorded, "before": found["live"], "why": "a rollout was cut off before its verdict"}
    parts.audit.append("rollback", subject=f"model/{model.name}", actor="falaj run", detail=detail)


def train_and_release(model: ModelSpec, parts: Parts, jobs: Jobs) -> str | None:
    """From raw rows to a rollout verdict; nothing where a release of this very declaration is live: evidence asks for the next one.

    Return why the gate refused what was trained, or None where it did not.
    """
    if _is_released(model, parts, jobs):
        return None
    name = keys.train_job(model.name)
    with jobs.bars.phase(f"{model.name}: train and release", jobs.steps(name), of="steps"):
        jobs.run(name)
    verdict = latest_record(jobs.instance, keys.model_key(model.name, "gate_verdict"), GateVerdict)
    return verdict.sentence if verdict is not None and not verdict.passed else None


def live(model: ModelSpec, dataset: DatasetSpec, parts: Parts, jobs: Jobs, client: PredictClient) -> list[str]:
    """Send every event after the history through the server, window by window, and follow what the platform decides.

    Return what went wrong without stopping the stream: refused requests, a retraining that failed.
    """
    wrong: list[str] = []
    stream = open_stream(model, dataset, parts)
    if not stream.left:
        return wrong
    grid = _refresh_grid(dataset)
    refreshed = parts.clock.now(dataset.name)
    answered = _last_verdict(model, jobs)
    with jobs.bars.phase(f"{model.name}: live traffic", stream.left, of="events"):
        while stream.left:
            jobs.bars.note(f"{stream.position:,} answered")
            now = _send(stream, client, parts, model.monitoring.window_rows, jobs)
            if grid and int(now.timestamp() // grid) != int(refreshed.timestamp() // grid):
                jobs.run(keys.refresh_job(dataset.name))
                refreshed = now
            jobs.run(keys.monitor_job(model.name))
            verdict = latest_record(jobs.instance, keys.model_key(model.name, "retraining_verdict"), RetrainingVerdict)
            if verdict is not None and verdict.asked and (answered is None or verdict.verdict_id != answered.verdict_id):
                answered = verdict
                run = _follow_retraining(verdict, stream, parts, jobs, client)
                if run is None:
                    wrong.append("the events came to an end while a retraining was rolled out: it is undone, the champion stays")
                elif run.status != dg.DagsterRunStatus.SUCCESS:
                    wrong.append(f"the retraining {run.run_id} ended as {run.status.value.lower()}; the champion stays")
        # The last events' outcomes become known: the data's clock goes to the end of the stream.
        parts.clock.advance(dataset.name, _end_of(stream))
        jobs.run(keys.refresh_job(dataset.name))
        jobs.run(keys.monitor_job(model.name))
    if stream.failed:
        wrong.append(f"{len(stream.failed)} requests were refused, the first because: {stream.failed[0]}")
    return wrong


def open_stream(model: ModelSpec, dataset: DatasetSpec, parts: Parts) -> Stream:
    """Open the live events, without those that were answered already, also where a killed main job had not collected their log."""
    import pyarrow as pa
    import pyarrow.compute as pc

    from resources.sources import live_rows

    rows = live_rows(dataset, parts.source(dataset.name))
    take_segments(model.name, parts)
    pin = parts.tables.pin(keys.table_name(keys.model_key(model.name, "production_log")))
    if pin is not None:
        logged = parts.tables.read(pin, columns=["key"]).column("key")
        rows = rows.filter(pc.invert(pc.is_in(rows.column(dataset.key).cast(pa.string()), value_set=logged.combine_chunks())))
    return Stream(model, dataset, rows)


def _send(stream: Stream, client: PredictClient, parts: Parts, count: int, jobs: Jobs, *, request_rows: int = REQUEST_ROWS) -> datetime:
    before = stream.position
    newest = stream.send(client, min(count, stream.left), request_rows=request_rows)
    jobs.bars.advance(stream.position - before)
    return parts.clock.advance(stream.dataset.name, newest)


def _follow_retraining(verdict: RetrainingVerdict, stream: Stream, parts: Parts, jobs: Jobs, client: PredictClient) -> dg.DagsterRun | None:
    """Wait for the run that the sensor launches; its shadow and canary are fed with the events that come next.

    While the network trains the data's clock stands still: minutes here are minutes there, and windows are weeks.
    """
    name = stream.model.name

    def meanwhile() -> bool:
        try:
            rolling = parts.serving.status(name).get("challenger") is not None
        except ServingError:
            rolling = False
        if rolling and not stream.left:
            time.sleep(_LAST_LOOK_SECONDS)  # what was sent last may just be enough
            return parts.serving.status(name).get("challenger") is None
        if rolling:
            _send(stream, client, parts, _ROLLOUT_ROWS, jobs, request_rows=1)
        else:
            time.sleep(0.5)
        return True

    return jobs.await_sensor_run(
        sensor=keys.DRIFT_SENSOR,
        job=keys.train_job(name),
        run_key=f"{name}:{verdict.verdict_id}",
        seconds=_RETRAINING_SECONDS,
        meanwhile=meanwhile,
    )


def _is_released(model: ModelSpec, parts: Parts, jobs: Jobs) -> bool:
    live = parts.serving.status(model.name)["live"]
    verdict = latest_record(jobs.instance, keys.model_key(model.name, "rollout_verdict"), RolloutVerdict)
    if live is None or verdict is None:
        return False
    lineage = json.loads(parts.releases.open(live)["lineage.json"])
    return bool(lineage["spec_hash"] == fingerprint(model))


def _last_verdict(model: ModelSpec, jobs: Jobs) -> RetrainingVerdict | None:
    return latest_record(jobs.instance, keys.model_key(model.name, "retraining_verdict"), RetrainingVerdict)


def _refresh_grid(dataset: DatasetSpec) -> float | None:
    """Seconds of the finest grid on which this dataset's features change by themselves."""
    return min((view.every.total_seconds() for view in dataset.views.values() if isinstance(view, AggregatesView)), default=None)


def _end_of(stream: Stream) -> datetime:
    import pyarrow.compute as pc

    label = stream.dataset.label
    column = label.known_at if label else stream.dataset.event_time
    newest: datetime = pc.max(stream.rows.column(column)).as_py()
    return newest
