"""Starts a run in a fork of a process that has loaded the code already: about a second, where starting Python anew takes five.

Where that process cannot be had, a run is started as Dagster does it, and its event log says so. A run is a process of its own either
way: it may be killed alone, and the monitor sees that it is gone.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from dagster._core.launcher.base import CheckRunHealthResult, WorkerStatus
from dagster._core.launcher.default_run_launcher import DefaultRunLauncher
from dagster._serdes import serialize_value

from platform_assets.errors import StateError
from resources.dagster_instance.code import stamp_code
from resources.processes import identify, lives
from resources.settings import CHECKOUT, Settings, child_environment, read_settings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dagster import DagsterRun
    from dagster._core.launcher.base import LaunchRunContext

PROCESS_TAG = "falaj/process"
_LOCATION = "platform_assets.definitions"
_READY_SECONDS = 90.0
_FORK_SECONDS = 10.0


class _Warm:
    """A warm process as its starter sees it."""

    def __init__(self, settings: Settings, stamp: str) -> None:
        self.stamp = stamp
        self._ready = False
        command = [sys.executable, "-m", "resources.dagster_instance.warm_process", _LOCATION]
        self._process = subprocess.Popen(
            command, cwd=CHECKOUT, env=child_environment(settings), text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    @property
    def lives(self) -> bool:
        return self._process.poll() is None

    def fork(self, request: Mapping[str, str]) -> int:
        """Return the pid of the run. OSError, ValueError or KeyError where it does not answer as it should."""
        if not self._ready:
            self._answer(seconds=_READY_SECONDS)
            self._ready = True
        assert self._process.stdin is not None
        print(json.dumps(request), file=self._process.stdin, flush=True)
        return int(self._answer(seconds=_FORK_SECONDS)["pid"])

    def end(self) -> None:
        """Let it end; its runs go on."""
        for end in (self._process.stdin, self._process.stdout):
            with suppress(OSError):
                end.close()  # type: ignore[union-attr]
        try:
            self._process.wait(_FORK_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _answer(self, *, seconds: float) -> dict[str, int]:
        output = self._process.stdout
        assert output is not None
        if not select.select([output], [], [], seconds)[0]:
            raise TimeoutError(f"no answer within {seconds:.0f} s")
        return dict(json.loads(output.readline()))


class _Keeper:
    """Keeps the one warm process of this process; another is started when it has ended, or the code has changed since."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._warm: _Warm | None = None

    def have(self) -> _Warm:
        settings = read_settings()
        stamp = stamp_code(settings)
        if self._warm is not None and (not self._warm.lives or self._warm.stamp != stamp):
            self.drop()
        if self._warm is None:
            self._warm = _Warm(settings, stamp)
        return self._warm

    def drop(self) -> None:
        if self._warm is not None:
            self._warm.end()
            self._warm = None

    def fork(self, request: Mapping[str, str]) -> int:
        """Return the pid of the run. StateError where no warm process can be had."""
        with self._lock:
            try:
                return self.have().fork(request)
            except (OSError, ValueError, KeyError) as error:
                self.drop()
                raise StateError(f"There is no warm process for it: {error}.") from error

    def warm_up(self) -> None:
        with self._lock:
            self.have()


_KEEPER = _Keeper()


def warm_up() -> None:
    """Begin to load the code now, in the background, for the first run to come."""
    _KEEPER.warm_up()


class WarmRunLauncher(DefaultRunLauncher):
    """Named as `run_launcher` in infra/dagster/laptop.yaml."""

    def launch_run(self, context: LaunchRunContext) -> None:
        """Fork, and remember the process in the run's tags."""
        run = context.dagster_run
        try:
            pid = _KEEPER.fork({"run_id": run.run_id, "instance": serialize_value(self._instance.get_ref())})
        except StateError as error:
            self._instance.report_engine_event(f"{error} It is started in a new one.", run, cls=type(self))
            super().launch_run(context)
            return
        self._instance.add_run_tags(run.run_id, {PROCESS_TAG: identify(pid)})

    def terminate(self, run_id: str) -> bool:
        """Interrupt the run's process, as Ctrl-C would."""
        run = self._instance.get_run_by_id(run_id)
        identity = run.tags.get(PROCESS_TAG) if run is not None else None
        if run is None or not identity:
            return super().terminate(run_id)
        if run.is_finished:
            return False
        self._instance.report_run_canceling(run)
        if not lives(identity):
            return False
        os.kill(int(identity.partition(":")[0]), signal.SIGINT)
        return True

    @property
    def supports_check_run_worker_health(self) -> bool:
        """Runs of ours are seen; of the others nothing is known."""
        return True

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        """Say whether the run's process is there."""
        identity = run.tags.get(PROCESS_TAG)
        if not identity or lives(identity):
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        return CheckRunHealthResult(WorkerStatus.FAILED, msg=f"its process {identity.partition(':')[0]} has ended without a word")
