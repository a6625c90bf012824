"""Replicas follow the server that releases are rolled out on, and their logs come home; real servers, several a home."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from serving_process import MODEL, Server

from platform_assets.errors import ServingError
from platform_assets.stages.serving.following import Follower
from platform_assets.stages.serving.held import held
from resources.replicas import gather
from resources.serving import PredictClient
from resources.settings import child_environment
from resources.testing.serving import TINY_ROW

PATIENCE_SECONDS = 30


def wait_for(what: Callable[[], object]) -> None:
    until = time.monotonic() + PATIENCE_SECONDS
    while not what():
        assert time.monotonic() < until, what
        time.sleep(0.05)


class Replica:
    """A server beside the home's own, in a folder of its own below the home, as a pod has one."""

    def __init__(self, leader: Server, name: str, *extra: str) -> None:
        home = leader.settings.home
        self.folder, self._ready = home.replicas / name, home.run / f"{name}.json"
        command = [
            sys.executable, "-m", "platform_assets.stages.serving", "--serving", self.folder, "--port", "0", "--keys", home.keys,
            "--ready-file", self._ready, "--follow", home.serving / "state.json", *extra,
        ]  # fmt: skip
        self.folder.mkdir(parents=True)
        self.process = subprocess.Popen([str(part) for part in command], env=child_environment(leader.settings), stderr=subprocess.PIPE)
        wait_for(self._ready.exists)

    def client(self) -> PredictClient:
        return PredictClient(json.loads(self._ready.read_text())["url"])

    def version(self) -> str:
        """Ask for a prediction; return the version that answered."""
        with self.client() as client:
            return client.predict(MODEL, [TINY_ROW])["version"]

    def end(self, number: int = signal.SIGKILL) -> str:
        if self.process.poll() is None:
            os.kill(self.process.pid, number)
        return self.process.communicate(timeout=PATIENCE_SECONDS)[1].decode()


@pytest.fixture
def replicas(live: Server) -> Iterator[list[Replica]]:
    found = [Replica(live, "inference-a"), Replica(live, "inference-b", "--workers", "2", "--close-log-seconds", "0.1")]
    yield found
    for one in found:
        one.end()


def test_what_is_taken_live_reaches_every_replica_and_a_rollback_too_but_no_canary(live: Server, replicas: list[Replica]) -> None:
    first = live.target.status(MODEL)["live"]
    assert [one.version() for one in replicas] == [first[:12]] * 2  # from the first answer on
    second = live.releases.make(2)
    live.target.load(MODEL, second)
    live.target.set_traffic(MODEL, live=first, challenger=second, mode="canary", percent=100)
    with live.client() as client:
        assert client.predict(MODEL, [TINY_ROW])["version"] == second[:12]
    live.target.set_traffic(MODEL, live=second)
    for one in replicas:
        wait_for(lambda one=one: one.version() == second[:12])
    live.target.set_traffic(MODEL, live=first)
    for one in replicas:
        wait_for(lambda one=one: one.version() == first[:12])


def test_rows_that_replicas_answered_come_into_the_homes_log_each_once(live: Server, replicas: list[Replica]) -> None:
    killed, running = replicas
    for one in (killed, running, running):
        one.version()
    wait_for(lambda: live.target.log_counts(MODEL).written == 3)
    killed.end()
    found = [line for file in live.target.rotate_log(MODEL) for line in file.read_text().splitlines()]
    wait_for(lambda: list((running.folder / "log" / MODEL).glob("*.open.frames")) == [])  # closed by its age
    found = [line for file in live.target.rotate_log(MODEL) for line in file.read_text().splitlines()]
    assert len({json.loads(line)["prediction_id"] for line in found}) == len(found) == 3
    assert killed.folder.exists()  # its container may be started again


def test_a_replica_that_is_long_gone_leaves_its_counts_and_no_folder(live: Server, replicas: list[Replica]) -> None:
    killed, _ = replicas
    killed.version()
    wait_for(lambda: live.target.log_counts(MODEL).written == 1)
    killed.end()
    for path in (killed.folder, *killed.folder.rglob("*")):
        os.utime(path, (0, 0))
    before = live.target.log_counts(MODEL)
    live.target.rotate_log(MODEL)
    assert not killed.folder.exists()
    assert live.target.log_counts(MODEL) == before
    assert gather(live.settings.home.replicas, live.settings.home.serving / "log") == 0


def test_a_folder_whose_server_has_not_begun_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "replicas" / "new" / "log" / MODEL).mkdir(parents=True)
    os.utime(tmp_path / "replicas" / "new", (0, 0))
    assert gather(tmp_path / "replicas", tmp_path / "log") == 0
    assert (tmp_path / "replicas" / "new").exists()


def test_two_servers_on_one_folder_are_told_apart(tmp_path: Path) -> None:
    told = f"is served already by process {os.getpid()}; stop that one first"
    with held(tmp_path), pytest.raises(ServingError, match=told), held(tmp_path):
        pass


class _Unable:
    """An admin that cannot load anything."""

    def __init__(self) -> None:
        self.asked = 0

    async def follow(self, model: str, *, digest: str, path: Path) -> None:
        self.asked += 1
        raise ServingError(f"{path} is not there")


def test_a_release_that_cannot_be_loaded_is_said_and_tried_again_more_seldom(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    leader, admin = tmp_path / "state.json", _Unable()
    follower = Follower(admin, leader, look_seconds=1000)  # type: ignore[arg-type]
    asyncio.run(follower.catch_up())
    assert admin.asked == 0  # a leader that never served
    saved = {"traffic": {"live": "a" * 64}, "loaded": {"a" * 64: "/nowhere"}}
    leader.write_text(json.dumps({"models": {MODEL: saved}}))
    asyncio.run(follower.catch_up())
    asyncio.run(follower.catch_up())
    assert admin.asked == 1
    leader.with_suffix(".new").write_text(leader.read_text())
    leader.with_suffix(".new").replace(leader)  # something has changed: at once
    asyncio.run(follower.catch_up())
    assert admin.asked == 2
    assert "/nowhere is not there" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["no JSON", '{"models": {"tiny": {}}}', '{"models": {"tiny": {"traffic": {"live": "a"}, "loaded": {}}}}'])
def test_a_file_that_is_no_state_is_named_and_ends_nothing(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    leader, admin = tmp_path / "state.json", _Unable()
    leader.write_text(text)
    asyncio.run(Follower(admin, leader).catch_up())  # type: ignore[arg-type]
    assert admin.asked == 0
    assert "is not a state file of this server" in capsys.readouterr().err
