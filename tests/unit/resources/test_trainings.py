"""A training's folder: held by one run at a time, its starts in order, gone with its lock when it is stored."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from resources.detached import start, stop
from resources.trainings import TrainingFolder, sweep

HOLD = "from pathlib import Path; from resources.trainings import TrainingFolder; import sys, time\nwith TrainingFolder(Path(sys.argv[1])).hold('first', waiting=print): print('held', flush=True); time.sleep(60)"


@pytest.fixture
def folder(tmp_path: Path) -> TrainingFolder:
    return TrainingFolder(tmp_path / "trainings" / "key")


def test_starts_are_numbered_and_an_end_is_noted_once_seen(folder):
    first = folder.new_attempt({"profile": "a"})
    assert (first.number, folder.open_attempt()) == (1, first)
    first.note_end({"outcome": "preempted"})
    assert folder.open_attempt() is None
    second = folder.new_attempt({"profile": "b"})
    assert [attempt.how["profile"] for attempt in folder.attempts()] == ["a", "b"]
    assert (second.number, folder.attempts()[0].ended()) == (2, {"outcome": "preempted"})


def test_a_start_whose_record_was_never_written_does_not_count(folder):
    folder.new_attempt({"n": 1}).note_end({})
    (folder.root / "attempts" / "0002").mkdir()
    (folder.root / "attempts" / "0002" / "output.log").touch()
    assert folder.open_attempt() is None
    assert folder.new_attempt({"n": 2}).number == 2
    assert not (folder.root / "attempts" / "0002" / "output.log").exists()


def test_the_next_holder_waits_told_by_whom_and_gets_in_when_the_first_is_killed(folder):
    first = subprocess.Popen([sys.executable, "-c", HOLD, str(folder.root)], stdout=subprocess.PIPE, text=True)
    assert first.stdout.readline() == "held\n"
    told: list[str] = []
    threading.Timer(0.7, first.kill).start()
    began = time.monotonic()
    with folder.hold("second", waiting=told.append):
        assert time.monotonic() - began > 0.6
    assert set(told) == {"first"}
    first.communicate()


def test_a_stored_training_leaves_neither_folder_nor_lock(folder):
    with folder.hold("one", waiting=print):
        folder.new_attempt({})
        folder.remove()
    assert list(folder.root.parent.iterdir()) == []


def test_who_waited_for_a_training_that_was_stored_holds_a_lock_that_newcomers_see(folder):
    """The file that it waited on is removed by then: a lock on that one would keep out nobody."""
    inside, order = threading.Event(), []

    def wait() -> None:
        with folder.hold("waiter", waiting=lambda holder: inside.set()):
            order.append("waiter in")
            time.sleep(0.7)
            order.append("waiter out")

    with folder.hold("one", waiting=print):
        waiter = threading.Thread(target=wait)
        waiter.start()
        inside.wait(5)
        folder.root.mkdir()
        folder.remove()
    while "waiter in" not in order:
        time.sleep(0.02)
    with folder.hold("newcomer", waiting=lambda holder: None):
        order.append("newcomer in")
    waiter.join()
    assert order == ["waiter in", "waiter out", "newcomer in"]


def test_only_old_folders_that_nobody_uses_are_swept(folder):
    trainings, old = folder.root.parent, time.time() - 100
    for name in ("old", "held", "running", "fresh"):
        attempt = TrainingFolder(trainings / name).new_attempt({})
        if name == "running":
            program = start([sys.executable, "-c", "import time; time.sleep(60)"], attempt.folder, environment=os.environ)
        for path in [*(trainings / name).rglob("*"), trainings / name]:
            os.utime(path, (old, old) if name != "fresh" else None)
    try:
        with TrainingFolder(trainings / "held").hold("somebody", waiting=print):
            assert sweep(trainings, older_than_seconds=50) == ["old"]
        assert sorted(path.name for path in trainings.iterdir() if path.is_dir()) == ["fresh", "held", "running"]
    finally:
        stop(program, seconds=5)
