"""A program that belongs to nobody: found by its folder, heard from where the last reader stopped, ended with all that it started."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from resources.detached import MARK, KeptMessages, end_leftovers, find, start, stop

SLEEP = "import time; time.sleep(60)"
DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)"
PARENT = (
    f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {SLEEP!r}], start_new_session=True); print('up', flush=True); {SLEEP}"
)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    end_leftovers(tmp_path)


def run(code: str, folder: Path):
    return start([sys.executable, "-c", code], folder, environment=os.environ)


def wait_for(condition) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def output(folder: Path) -> str:
    return (folder / "output.log").read_text()


def test_a_program_is_found_by_its_folder_until_it_ends(folder):
    program = run(SLEEP, folder)
    assert find(folder) == type(program)(program.pid, program.started)
    assert os.getsid(program.pid) == program.pid
    assert stop(program, seconds=5)
    assert program.code == -signal.SIGTERM
    assert find(folder) is None


def test_it_is_found_although_its_starter_was_killed_before_it_could_write_it_down(folder):
    program = run(SLEEP, folder)
    (folder / "process.json").unlink()
    assert find(folder).pid == program.pid


def test_a_pid_that_is_anothers_by_now_is_not_it(folder):
    stranger = subprocess.Popen([sys.executable, "-c", SLEEP])
    try:
        (folder / "process.json").write_text(json.dumps({"pid": stranger.pid, "started": 1.0}))
        assert find(folder) is None
    finally:
        stranger.kill()
        stranger.wait()


def test_a_program_that_does_not_listen_is_killed_with_its_children(folder):
    program = run(DEAF, folder)
    wait_for(lambda: "deaf" in output(folder))
    assert not stop(program, seconds=0.3)
    assert program.code == -signal.SIGKILL


def test_what_a_killed_program_left_behind_is_ended(folder):
    program = run(PARENT, folder)
    wait_for(lambda: "up" in output(folder))
    os.kill(program.pid, signal.SIGKILL)
    wait_for(lambda: not program.alive)
    assert end_leftovers(folder) == 1
    wait_for(lambda: end_leftovers(folder) == 0)


def test_it_hears_the_keyboard_interrupt_although_its_starter_ignores_it(folder):
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        program = run("import signal; print(signal.getsignal(signal.SIGINT) is signal.default_int_handler, flush=True)", folder)
    finally:
        signal.signal(signal.SIGINT, before)
    wait_for(lambda: not program.alive)
    assert output(folder) == "True\n"


def test_it_is_nobodys_orphan(folder):
    """The marks by which the processes of a killed `falaj run` are found and ended must not reach it."""
    program = start([sys.executable, "-c", SLEEP], folder, environment={**os.environ, "FALAJ_TIED": "1", "FALAJ_OWNER": "1:1.00"})
    environment = psutil.Process(program.pid).environ()
    assert (environment["FALAJ_TIED"], environment["FALAJ_OWNER"], environment[MARK]) == ("", "", str(folder))


class Heard:
    """What Dagster's handler would be told."""

    def __init__(self) -> None:
        self.messages: list[object] = []

    def handle_message(self, message: dict) -> None:
        if message["method"] == "bad":
            raise ValueError(message)
        self.messages.append(message.get("said", message["method"]))


def listen(folder: Path, *, until: int | None = None, meanwhile=lambda: None) -> list[object]:
    heard = Heard()
    with KeptMessages(folder).read_messages(heard):
        meanwhile()
        if until is not None:
            wait_for(lambda: len(heard.messages) >= until)
    return heard.messages


def say(folder: Path, *said: object, end: str = "\n") -> None:
    with (folder / "messages.jsonl").open("a") as file:
        file.write("\n".join(json.dumps({"method": "log", "said": word}) for word in said) + end)


def test_each_reader_goes_on_where_the_last_one_stopped(folder):
    say(folder, 1, 2)
    assert listen(folder) == [1, 2]
    say(folder, 3)
    assert listen(folder, meanwhile=lambda: say(folder, 4)) == ["opened", 3, 4]
    assert listen(folder) == ["opened"]
    assert len((folder / "messages.jsonl").read_text().splitlines()) == 4, "nothing is cut or removed"


def test_a_message_is_heard_only_when_it_is_whole(folder):
    say(folder, 1, end="")
    assert listen(folder) == []
    say(folder, end="")
    (folder / "messages.jsonl").open("a").write("\n")
    assert listen(folder) == [1]


def test_what_cannot_be_read_is_skipped_and_a_cut_file_is_read_from_its_start(folder):
    say(folder, 1)
    with (folder / "messages.jsonl").open("ab") as file:
        file.write(b'\xff\xfe\n[]\n{"method": "bad"}\nnull\n')
    say(folder, 2)
    assert listen(folder) == [1, 2]
    os.truncate(folder / "messages.jsonl", 0)
    say(folder, 3)
    assert listen(folder) == ["opened", 3]


def test_a_reader_killed_while_it_reads_leaves_what_it_did_not_hand_on(folder, monkeypatch):
    monkeypatch.setattr(threading, "excepthook", lambda failure: None)
    say(folder, 1)

    class Dies(Heard):
        def handle_message(self, message: dict) -> None:
            raise SystemExit

    with KeptMessages(folder).read_messages(Dies()):
        wait_for(lambda: not any(thread.name == "messages" for thread in threading.enumerate()))
    assert listen(folder) == [1]
