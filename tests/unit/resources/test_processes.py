"""Background processes: known by pid and start time, ended with their children, orphans of a dead owner found."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from platform_assets.errors import StateError
from resources import processes
from resources.settings import Home

SLEEPER = [
    sys.executable,
    "-c",
    "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']); time.sleep(60)",
]


def environment(home: Home) -> dict[str, str]:
    return {**os.environ, "FALAJ_HOME": str(home.root)}


def test_a_started_process_is_found_and_stopped_with_its_children(tmp_path: Path) -> None:
    home = Home(tmp_path)
    record = processes.start(home, "x", SLEEPER, environment=environment(home), tied=False)
    processes.wait_until(lambda: psutil.Process(record.pid).children(), seconds=10, what="the child", log=record.log)
    family = [record.pid, *(child.pid for child in psutil.Process(record.pid).children())]
    assert processes.running(home, "x") == record
    assert processes.stop(home, "x")
    assert not any(psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE for pid in family)
    assert not processes.stop(home, "x")


def test_a_pid_that_is_another_process_by_now_is_left_alone(tmp_path: Path) -> None:
    home = Home(tmp_path)
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        processes.write_atomically(home.run / "x.json", f'{{"name":"x","pid":{stranger.pid},"started":1.0,"log":""}}'.encode())
        assert processes.running(home, "x") is None
        assert not processes.stop(home, "x")
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_what_a_killed_owner_left_behind_is_ended_and_nothing_else(tmp_path: Path) -> None:
    home = Home(tmp_path)
    marked = {**environment(home), "FALAJ_TIED": "1"}
    orphan = subprocess.Popen(SLEEPER, env={**marked, processes.OWNER: "999999999:1.00"}, start_new_session=True)
    ours = subprocess.Popen(
        SLEEPER, env={**marked, processes.OWNER: f"{os.getpid()}:{psutil.Process().create_time():.2f}"}, start_new_session=True
    )
    try:
        time.sleep(0.5)
        assert processes.end_orphans(home) >= 1
        assert orphan.poll() is not None
        assert ours.poll() is None
    finally:
        for process in (orphan, ours):
            for child in psutil.Process(process.pid).children() if process.poll() is None else []:
                child.kill()
            process.kill()
            process.wait()


def test_waiting_in_vain_names_what_and_where_to_read(tmp_path: Path) -> None:
    with pytest.raises(StateError, match=r"The thing did not come up within 0 s; its last words are in .*x\.log"):
        processes.wait_until(lambda: False, seconds=0.2, what="The thing", log=tmp_path / "x.log")


def test_what_has_ended_is_not_waited_for(tmp_path: Path) -> None:
    home = Home(tmp_path)
    processes.start(home, "thing", [sys.executable, "-c", "print('no')"], environment={**os.environ}, tied=False)
    with pytest.raises(StateError, match=r"The thing ended before it had come up; its last words are in .*thing\.log"):
        processes.wait_until(
            lambda: False, seconds=60, what="The thing", log=home.logs / "thing.log",
            alive=lambda: processes.running(home, "thing") is not None,
        )  # fmt: skip
