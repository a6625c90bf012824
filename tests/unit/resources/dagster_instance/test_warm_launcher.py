"""Runs are forks of a process that has loaded the code: fresh each, seen when they die, interrupted when asked, never without a start."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import psutil
import pytest
from dagster._core.definitions.reconstruct import ReconstructableRepository
from dagster._core.definitions.repository_definition import RepositoryLoadData
from dagster._core.definitions.repository_definition.repository_definition import CodeLocationReconstructionMetadataValue
from dagster._core.execution.api import create_execution_plan
from dagster._core.launcher.base import LaunchRunContext, WorkerStatus
from pipeline.tiny import DEFS, wait_for

from resources.dagster_instance import warm_launcher
from resources.dagster_instance.warm_launcher import PROCESS_TAG, WarmRunLauncher

pytestmark = pytest.mark.timeout(300)
CODE = """
import json, os, random, sys, time
from pathlib import Path
import dagster as dg
import numpy as np

SEEN = []

@dg.op
def look(context):
    SEEN.append(context.run_id)
    numpy_draw, own_draw = float(np.random.rand()), random.random()
    told = {"pid": os.getpid(), "parent": os.getppid(), "seen": SEEN, "draws": [numpy_draw, own_draw], "text": TEXT, "input": sys.stdin.read()}
    (Path(__file__).parent / f"{context.run_id}.json").write_text(json.dumps(told))
    while (Path(__file__).parent / "wait").exists():
        time.sleep(0.05)

@dg.job(executor_def=dg.in_process_executor)
def looks():
    look()

@dg.repository
def defs():
    return [looks]
"""


class Place:
    """An instance with the launcher, and the code of one job."""

    def __init__(self, root: Path, instance: dg.DagsterInstance) -> None:
        self.root, self.instance = root, instance
        self.code = root / "code.py"
        self.write("first")

    def write(self, text: str) -> None:
        self.code.write_text(CODE.replace("TEXT", repr(text)))

    def launch(self) -> str:
        job = ReconstructableRepository.for_file(str(self.code), "defs", str(self.root)).get_reconstructable_job("looks")
        run = self.instance.create_run_for_job(job.get_definition(), job_code_origin=job.get_python_origin())
        self.instance.run_launcher.launch_run(LaunchRunContext(dagster_run=run, workspace=None))
        return run.run_id

    def told(self, run_id: str) -> dict:
        wait_for(lambda: (self.root / f"{run_id}.json").exists() and (self.root / f"{run_id}.json").read_text(), seconds=60, what="the run")
        return json.loads((self.root / f"{run_id}.json").read_text())

    def ended(self, run_id: str) -> dg.DagsterRunStatus:
        wait_for(lambda: self.instance.get_run_by_id(run_id).is_finished, seconds=60, what="the run's end")
        return self.instance.get_run_by_id(run_id).status


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    defs = tmp_path / "defs"
    defs.mkdir()
    for kind in ("models", "datasets"):
        (defs / kind).symlink_to(DEFS / kind)
    monkeypatch.setenv("FALAJ_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("FALAJ_DEFS", str(defs))
    launcher = {"module": WarmRunLauncher.__module__, "class": WarmRunLauncher.__name__}
    with dg.instance_for_test(overrides={"run_launcher": launcher}, temp_dir=str(tmp_path)) as instance:
        yield Place(tmp_path, instance)
    warm_launcher._KEEPER.drop()


def test_each_run_is_a_process_of_its_own_that_has_seen_no_other(place: Place) -> None:
    runs = [place.launch(), place.launch()]
    assert [place.ended(run) for run in runs] == [dg.DagsterRunStatus.SUCCESS] * 2
    first, second = (place.told(run) for run in runs)
    assert first["parent"] == second["parent"] != os.getpid()
    assert len({first["pid"], second["pid"], first["parent"]}) == 3
    assert (first["seen"], second["seen"]) == ([runs[0]], [runs[1]])
    assert not set(first["draws"]) & set(second["draws"])
    assert first["input"] == ""
    (process,) = [child for child in psutil.Process().children() if child.pid == first["parent"]]
    wait_for(lambda: process.children() == [], seconds=10, what="the end of its children")


def test_a_run_that_is_killed_is_seen_and_one_that_is_asked_to_end_ends(place: Place) -> None:
    (place.root / "wait").touch()
    killed, asked = place.launch(), place.launch()
    launcher = place.instance.run_launcher
    pids = [place.told(run)["pid"] for run in (killed, asked)]
    find = place.instance.get_run_by_id
    assert find(killed).tags[PROCESS_TAG].startswith(f"{pids[0]}:")
    assert launcher.check_run_worker_health(find(killed)).status is WorkerStatus.RUNNING
    os.kill(pids[0], signal.SIGKILL)
    wait_for(lambda: launcher.check_run_worker_health(find(killed)).status is WorkerStatus.FAILED, seconds=10, what="the word of its end")
    assert launcher.terminate(asked)
    assert place.ended(asked) is dg.DagsterRunStatus.CANCELED
    assert not launcher.terminate(asked)
    assert not launcher.terminate(killed), "there is nobody to ask"


def test_runs_survive_the_warm_process_and_the_next_gets_another(place: Place) -> None:
    (place.root / "wait").touch()
    before = place.launch()
    warm = place.told(before)["parent"]
    os.kill(warm, signal.SIGKILL)
    after = place.launch()
    assert place.told(after)["parent"] != warm
    (place.root / "wait").unlink()
    assert {place.ended(before), place.ended(after)} == {dg.DagsterRunStatus.SUCCESS}


def test_what_was_loaded_from_other_declarations_starts_nothing(place: Place) -> None:
    first = place.told(place.launch())
    (place.root / "defs" / "more.yaml").write_text("# a change")
    second = place.told(place.launch())
    assert first["parent"] != second["parent"]
    assert not psutil.pid_exists(first["parent"])


def test_where_it_cannot_load_the_code_the_run_is_started_as_dagster_does(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    started = []
    monkeypatch.setattr(warm_launcher, "_LOCATION", "no_such_module")
    monkeypatch.setattr(warm_launcher.DefaultRunLauncher, "launch_run", lambda self, context: started.append(context.dagster_run.run_id))
    run = place.launch()
    assert started == [run]
    (event,) = [entry.message for entry in place.instance.all_logs(run) if "no warm process" in (entry.message or "")]
    assert event.endswith("It is started in a new one.")


def test_a_run_takes_over_what_was_loaded_before_it_and_changes_nothing_of_it(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    module = place.root / "path" / "code_of_the_location.py"
    module.parent.mkdir()
    text = CODE.replace("TEXT", "LOADED").replace(".parent", ".parent.parent")
    bare, counted = "@dg.repository\ndef defs():\n    return [looks]", "@dg.definitions\ndef defs():\n    LOADED.append(os.getpid())"
    text = text.replace(bare, counted + "\n    return dg.Definitions(jobs=[looks])")  # called at each load, unlike a repository
    module.write_text(text.replace("SEEN = []", "SEEN, LOADED = [], []"))
    monkeypatch.setattr(warm_launcher, "_LOCATION", module.stem)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(module.parent), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.syspath_prepend(str(module.parent))
    job = ReconstructableRepository.for_module(module.stem, "defs", str(module.parent)).get_reconstructable_job("looks")
    plan = create_execution_plan(job)

    def tell(given: RepositoryLoadData | None) -> dict:
        """What a run says that carries how the location was loaded, as one of a workspace does."""
        planned = plan._replace(repository_load_data=given)
        run = place.instance.create_run_for_job(job.get_definition(), execution_plan=planned, job_code_origin=job.get_python_origin())
        assert run.has_repository_load_data is (given is not None)
        place.instance.run_launcher.launch_run(LaunchRunContext(dagster_run=run, workspace=None))
        assert place.ended(run.run_id) is dg.DagsterRunStatus.SUCCESS
        told = place.told(run.run_id)
        assert told["seen"] == [run.run_id]
        return told

    for given in (None, None, RepositoryLoadData(code_location_name="as_a_workspace_says")):
        one = tell(given)
        assert one["text"] == [one["parent"]], "loaded once, by the process that all are forks of"
    other = tell(RepositoryLoadData(reconstruction_metadata={"state": CodeLocationReconstructionMetadataValue("of another load")}))
    assert other["text"] == [other["parent"], other["pid"]], "loaded from other data: anew"
