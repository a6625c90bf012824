"""The inference image, built here, as a cluster runs it: read-only, without capabilities, within limits."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from podman import CONFINED, USER, Podman, hand_over, need_podman, open_way
from serving_process import MODEL, Server

from platform_assets.errors import ServingError
from resources.serving import LocalServing
from resources.testing.serving import TINY_ROW
from resources.tokens import ensure_signing_key


class Contained(Server):
    """A server in a container; whoever asks reaches it by FALAJ_SERVE_URL, as on a cluster."""

    name = f"falaj-test-{os.getpid()}"

    def __init__(self, root: Path, image: str, podman: Podman) -> None:
        super().__init__(root)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.settings = replace(self.settings, serve_url=f"http://127.0.0.1:{port}")
        self.target = LocalServing(self.settings, self.releases)
        self.podman, self._image, self._port = podman, image, port

    def start(self, *extra: str) -> None:
        home = self.settings.home
        ensure_signing_key(home.keys)
        home.serving.mkdir(parents=True, exist_ok=True)
        self.give()
        self.podman(
            "run", "-d", "--name", self.name, "--network=host", *CONFINED, "--memory=512m", "--cpus=1", f"--volume={home.root}:{home.root}", self._image,
            "python", "-m", "platform_assets.stages.serving", f"--serving={home.serving}", "--host=127.0.0.1", f"--port={self._port}",
            f"--keys={home.keys}", *extra,
        )  # fmt: skip
        until = time.monotonic() + 30
        while not self.ready():
            assert time.monotonic() < until, self.podman.logs(self.name)
            time.sleep(0.05)

    def give(self) -> None:
        """Let the container's user read what this one wrote."""
        hand_over(self.settings.home.root)

    def ready(self) -> bool:
        try:
            with self.client("predict") as client:
                return client.request("GET", "/v2/health/ready")["ready"]
        except ServingError:
            return False

    def deploy(self, seed: int = 1) -> str:
        digest = self.releases.make(seed)
        self.give()
        self.target.load(MODEL, digest)
        self.target.set_traffic(MODEL, live=digest)
        return digest


@pytest.fixture(scope="module")
def podman(tmp_path_factory: pytest.TempPathFactory) -> Podman:
    need_podman()
    return Podman(tmp_path_factory.mktemp("podman"))


@pytest.fixture(scope="module")
def image(podman: Podman, checkout: Path) -> Iterator[str]:
    with podman.built(checkout, "inference") as name:
        yield name


@pytest.fixture
def contained(tmp_path: Path, image: str, podman: Podman) -> Iterator[Contained]:
    open_way(tmp_path)
    server = Contained(tmp_path, image, podman)
    server.start()
    try:
        yield server
    finally:
        server.podman("rm", "--force", server.name)


def test_the_image_says_its_commit_its_user_and_what_is_in_it(contained: Contained, checkout: Path) -> None:
    told = json.loads(contained.podman("inspect", contained.name))[0]["Config"]
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=checkout, capture_output=True, text=True, check=True).stdout.strip()
    assert os.environ.get("FALAJ_IMAGE_INFERENCE") or told["Labels"]["org.opencontainers.image.revision"].removesuffix("-dirty") == head
    assert re.fullmatch("sha256:[0-9a-f]{64}", told["Labels"]["org.opencontainers.image.base.digest"])
    assert told["User"] == f"{USER}:{USER}"
    bill = json.loads(contained.podman("exec", contained.name, "cat", told["Labels"]["ae.falaj.sbom"]))
    assert "onnxruntime" in {one["name"] for one in bill["components"]}


def test_it_predicts_is_scraped_takes_another_release_and_loses_no_request_when_told_to_end(contained: Contained) -> None:
    first = contained.deploy(seed=1)
    with contained.client("predict") as client:
        assert client.predict(MODEL, [TINY_ROW])["version"] == first[:12]
        assert contained.podman("exec", contained.name, "id", "-u") == str(USER)
    asked = urllib.request.Request(
        f"{contained.settings.serve_url}/metrics", headers={"authorization": f"Bearer {contained.token('predict')}"}
    )
    with urllib.request.urlopen(asked, timeout=10) as page:
        assert b'falaj_http_replies_total{status="200"}' in page.read()
    second = contained.deploy(seed=2)
    with contained.client("predict") as client:
        assert client.predict(MODEL, [TINY_ROW])["version"] == second[:12]

    answered, failures = [0], []

    def ask() -> None:
        with contained.client("predict") as client:
            try:
                while True:
                    client.predict(MODEL, [TINY_ROW])
                    answered[0] += 1
            except ServingError as error:
                failures.append(str(error))

    callers = [threading.Thread(target=ask) for _ in range(4)]
    for caller in callers:
        caller.start()
    until = time.monotonic() + 30
    while answered[0] < 200:
        assert time.monotonic() < until
        time.sleep(0.01)
    contained.podman("stop", "--time=20", contained.name)
    for caller in callers:
        caller.join(timeout=30)
    assert contained.podman("inspect", contained.name, "--format", "{{.State.ExitCode}}") == "0"
    assert len(failures) == 4
    assert all("refused" in failure or "not ready" in failure for failure in failures), failures  # after the last answer, nobody listens
