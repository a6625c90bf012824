"""Several workers behind one port: what one server promises, kept by all of them, and when one of them dies."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from serving_process import MODEL, Server

from platform_assets.errors import ServingError
from platform_assets.manifests import read_release
from platform_assets.stages.serving import supervisor as control
from platform_assets.stages.serving.bundle import build_bundle, check_speed
from platform_assets.stages.serving.fleet import Stored
from platform_assets.stages.serving.worker import ServerConfig, read_sealed, seal
from resources.serving import PredictClient, log_lines
from resources.testing.serving import TINY_ROW, write_tiny_release


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(tmp_path)
    made.start("--workers", "2")
    yield made
    if made.process.poll() is None:
        assert made.kill(signal.SIGTERM) == ""


def logged(server: Server) -> list[dict]:
    return [json.loads(line) for file in log_lines(server.settings.home.serving / "log" / MODEL) for line in file.read_text().splitlines()]


def workers(server: Server) -> list[int]:
    with server.client("admin") as client:
        return [worker["pid"] for worker in client.request("GET", "/status")["server"]["workers"]]


def test_every_worker_answers_counts_and_logs_and_the_sum_is_told(server):
    digest = server.deploy()
    seen = Counter()
    clients = [server.client() for _ in range(16)]  # the kernel deals connections out
    for client in clients:
        seen[client.predict(MODEL, [TINY_ROW])["request_id"][:12]] += 1
    assert len(seen) == 2  # ids begin with their process's own prefix
    assert server.target.arms(MODEL)[digest].requests == 16
    with server.client() as client:
        found = client.request("GET", "/status")["server"]
    assert found["replies"]["200"] >= 16
    cores = [worker["core"] for worker in found["workers"]]
    assert all(os.sched_getaffinity(worker["pid"]) == {worker["core"]} for worker in found["workers"] if worker["core"] is not None)
    assert len(set(cores)) == len(cores) or cores == [None, None]
    for client in clients:
        client.close()
    server.target.rotate_log(MODEL)
    assert len({line["request_id"] for line in logged(server)}) == 16


def test_a_swap_is_in_force_in_every_worker_when_it_returns_and_drops_nothing(server):
    digests = [server.deploy(1), server.releases.make(2)]
    server.target.load(MODEL, digests[1])
    stop = threading.Event()
    seen: Counter[str] = Counter()

    def load() -> None:
        with server.client() as client:
            while not stop.is_set():
                seen[client.predict(MODEL, [TINY_ROW])["version"]] += 1

    clients = [server.client() for _ in range(8)]
    with ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit(load) for _ in range(4)]
        for at in range(20):
            live = digests[at % 2 - 1]
            server.target.set_traffic(MODEL, live=live)
            assert {client.predict(MODEL, [TINY_ROW])["version"] for client in clients} == {live[:12]}
        stop.set()
        for job in jobs:
            job.result()
    assert set(seen) == {digest[:12] for digest in digests}
    for client in clients:
        client.close()


def test_a_worker_that_dies_is_replaced_and_serves_what_the_others_do(server):
    digest = server.deploy()
    before = workers(server)
    os.kill(before[0], signal.SIGKILL)
    until = time.monotonic() + 20
    while before[0] in (after := workers(server)) or 0 in after:
        assert time.monotonic() < until
        time.sleep(0.05)
    assert after[1] == before[1]
    answers = [server.client() for _ in range(12)]
    assert {client.predict(MODEL, [TINY_ROW])["version"] for client in answers} == {digest[:12]}
    for client in answers:
        client.close()


def test_sigterm_drains_every_worker(server):
    server.deploy()
    answered: list[str] = []

    def load() -> None:
        with PredictClient(server.url) as client:
            while True:
                try:
                    answered.append(client.predict(MODEL, [TINY_ROW])["request_id"])
                except ServingError:
                    return

    with ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit(load) for _ in range(4)]
        time.sleep(0.5)
        assert server.kill(signal.SIGTERM) == ""
        for job in jobs:
            job.result()
    assert server.process.returncode == 0
    assert Counter(line["request_id"] for line in logged(server)) == Counter(answered)


def test_workers_end_with_their_supervisor_and_the_next_one_goes_on(server):
    digest = server.deploy()
    left = workers(server)
    server.kill(signal.SIGKILL)
    until = time.monotonic() + 20
    while any(Path(f"/proc/{pid}").exists() for pid in left):
        assert time.monotonic() < until
        time.sleep(0.05)
    server.start("--workers", "2")
    assert server.target.status(MODEL)["live"] == digest


def test_a_poisoned_release_reaches_no_worker(server):
    server.deploy()
    before = server.target.status(MODEL)
    with pytest.raises(ServingError, match="differ from the recorded ones"):
        server.target.load(MODEL, server.releases.make(4, altered_answers=0.02))
    assert server.target.status(MODEL) == before


def test_a_release_that_crashes_takes_only_its_trial_with_it(tmp_path, monkeypatch):
    digest = write_tiny_release(tmp_path / "one", model=MODEL, seed=1)
    files = {file.name: file.read_bytes() for file in (tmp_path / "one").iterdir()}
    stored = Stored(digest, tmp_path / "one", seal(files), 1)
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        one = control.Supervisor(ServerConfig(tmp_path), [listening])
        one._try(stored, model=MODEL, champion=None)
        monkeypatch.setattr(control, "_build", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
        with pytest.raises(ServingError, match="ended with signal 9"):
            one._try(stored, model=MODEL, champion=None)
        monkeypatch.setattr(control, "_build", lambda *_: time.sleep(60))
        monkeypatch.setattr(control, "_TRIAL_SECONDS", 0.2)
        with pytest.raises(ServingError, match=r"not warm after 0\.2 s"):
            one._try(stored, model=MODEL, champion=None)


def test_a_release_many_times_slower_than_the_champion_is_refused(tmp_path):
    digest = write_tiny_release(tmp_path / "one", model=MODEL, seed=1)
    champion = build_bundle(read_release(tmp_path / "one").files, path=tmp_path / "one", model=MODEL, digest=digest)

    class Slow:
        def run(self, *asked: object) -> object:
            time.sleep(0.02)
            return champion.session.run(*asked)

    with pytest.raises(ServingError, match=r"a row takes it .* nothing was changed"):
        check_speed(replace(champion, session=Slow()), champion)
    check_speed(champion, champion)


def test_sealed_bytes_are_what_was_put_in_and_cannot_be_changed():
    files = {"a": b"one", "b": b"", "c": bytes(range(256)) * 500}
    file = seal(files)
    assert read_sealed(file) == files
    with pytest.raises(PermissionError):
        os.write(file, b"x")
    os.close(file)


def test_a_port_that_another_server_has_is_not_shared_with_it(server):
    host, port = server.address
    other = Server(server.settings.home.root.parent / "other")
    with pytest.raises(AssertionError, match="cannot listen"):
        other.start("--port", str(port), "--host", host, "--workers", "2")


def test_https_with_a_certificate_of_ones_own(tmp_path):
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", cert], check=True, capture_output=True,
    )  # fmt: skip
    import http.client
    import ssl

    server = Server(tmp_path)
    server.start("--tls-cert", str(cert), "--tls-key", str(key))
    try:
        assert server.url.startswith("https://127.0.0.1:")
        port = int(server.url.rpartition(":")[2])
        connection = http.client.HTTPSConnection("127.0.0.1", port, context=ssl.create_default_context(cafile=str(cert)), timeout=10)
        for closing in ({}, {"connection": "close"}):
            connection.request("GET", "/v2/health/ready", headers=closing)
            reply = connection.getresponse()
            assert (reply.status, reply.read()) == (200, b'{"ready":true}')
    finally:
        assert server.kill(signal.SIGTERM) == ""


def test_a_certificate_that_is_none_is_named(tmp_path):
    (tmp_path / "cert.pem").write_text("nothing")
    server = Server(tmp_path)
    with pytest.raises(AssertionError, match="no certificate and its key"):
        server.start("--tls-cert", str(tmp_path / "cert.pem"), "--tls-key", str(tmp_path / "cert.pem"))
