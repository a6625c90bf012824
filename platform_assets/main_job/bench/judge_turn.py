"""A contestant: one turn of many models through the real daemon: `... judge_turn FOLDER MODELS`.

Every model is live, has one new window, and declares that it is judged once a minute. Measured from the first request of the sensor to the
last model's verdict: the wall clock, and the CPU of the daemon and of all that it starts (sampled, so that the last moments of a run may be
missing), the sensors' process included.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from platform_assets.main_job.bench.evaluate_models import prepare, write_home
from platform_assets.main_job.bench.orchestration import run_daemon

if TYPE_CHECKING:
    from collections.abc import Iterable

    import dagster as dg

_LOOK_SECONDS, _LOOKS, _UP_SECONDS, _MOST_SECONDS = 0.25, 12, 300.0, 900.0


def main() -> None:
    """Print the figures as JSON."""
    import dagster as dg

    from platform_assets.definitions import bind_parts
    from platform_assets.main_job import site

    settings, schema = write_home(Path(sys.argv[1]), models=int(sys.argv[2]))
    site.prepare(settings)
    parts = bind_parts(settings)
    names = list(parts.catalogue.models)
    prepare(names, parts, schema)
    with dg.DagsterInstance.from_config(str(settings.home.instance)) as instance:
        try:
            with run_daemon(settings) as daemon:
                figures = _follow(names, instance, daemon)
        finally:
            _end_runs(instance)
    sys.stdout.write(json.dumps(figures) + "\n")


def _follow(names: list[str], instance: dg.DagsterInstance, daemon: int) -> dict[str, float]:
    import dagster as dg

    from platform_assets import keys

    meter, deadline = _Meter(daemon), time.monotonic() + _UP_SECONDS
    judging = dg.RunsFilter(job_name=keys.JUDGE_JOB)
    while not (runs := instance.get_run_records(judging, limit=1, ascending=True)):
        meter.look()
        if time.monotonic() > deadline:
            raise TimeoutError("the daemon asked for no run")
        time.sleep(_LOOK_SECONDS)
    before, began = meter.look(), runs[0].create_timestamp.timestamp()
    while len(found := _judged(names, instance)) < len(names):
        for _ in range(_LOOKS):  # each question costs as much as judging a model
            meter.look()
            time.sleep(_LOOK_SECONDS)
        if time.monotonic() > deadline + _MOST_SECONDS:
            raise TimeoutError(f"{len(found)} of {len(names)} models have a verdict")
    return {
        "wall_seconds": max(found) - began, "cpu_seconds": meter.look() - before, "runs": float(instance.get_runs_count(judging)),
        "median_wall_seconds": sorted(found)[len(found) // 2] - began,
    }  # fmt: skip


def _end_runs(instance: dg.DagsterInstance) -> None:
    """End the runs of the next turn, which has begun: they outlive the daemon, and their home is about to go."""
    import dagster as dg

    from resources.dagster_instance.warm_launcher import PROCESS_TAG
    from resources.processes import lives

    for run in instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED])):
        identity = run.tags.get(PROCESS_TAG, "")
        if identity and lives(identity):
            os.kill(int(identity.partition(":")[0]), signal.SIGKILL)


def _judged(names: Iterable[str], instance: dg.DagsterInstance) -> list[float]:
    from platform_assets import keys
    from platform_assets.components.step import key_of

    records = instance.get_asset_records([key_of(keys.model_key(name, "retraining_outcome")) for name in names])
    return [one.asset_entry.last_materialization_record.timestamp for one in records if one.asset_entry.last_materialization_record]


class _Meter:
    """CPU seconds of a process and all below it, of those that ended as well: runs are nobody's children who would count them."""

    def __init__(self, pid: int) -> None:
        import psutil

        self._root, self._seen = psutil.Process(pid), dict[tuple[int, float], float]()

    def look(self) -> float:
        import psutil

        for process in (self._root, *self._root.children(recursive=True)):
            try:
                times = process.cpu_times()
                self._seen[process.pid, process.create_time()] = times.user + times.system
            except psutil.Error:
                continue
        return sum(self._seen.values())


if __name__ == "__main__":
    main()
