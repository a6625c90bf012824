"""Models that do not fit into memory together, and faults that nobody foresaw."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path

import pytest
from serving_process import Server

from platform_assets.errors import ServingError
from platform_assets.main_job.bench.serving_setup import NAMES, write_release
from platform_assets.stages.serving.replies import Unforeseen, UnforeseenError


@pytest.fixture
def crowded(tmp_path: Path):
    server = Server(tmp_path)
    server.start("--memory-mb", "2")
    yield server
    if server.process.poll() is None:
        server.kill(signal.SIGTERM)


def deploy(server: Server, model: str) -> Path:
    folder = server.settings.home.root / "made" / model
    write_release(folder, model=model, seed=len(model), hidden=512)  # 1.2 MB
    digest = server.releases.store.put(folder)
    server.target.load(model, digest)
    server.target.set_traffic(model, live=digest)
    return server.releases.path(digest)


def test_the_least_recently_used_model_is_unloaded_and_comes_back_when_asked_for(crowded):
    row = dict.fromkeys(NAMES, 0.5)
    deploy(crowded, "one")
    with crowded.client() as client:
        before = client.predict("one", [row])["predictions"]
        deploy(crowded, "three")
        facts = client.request("GET", "/status")["server"]
        assert facts["unloaded_models"] == 1
        assert facts["loaded_bytes"] <= 2 << 20
        assert client.predict("one", [row])["predictions"] == before
        assert client.predict("three", [row])["predictions"] != before
        facts = client.request("GET", "/status")["server"]
        assert facts["unloaded_models"] == 3
        assert facts["loaded_bytes"] <= 2 << 20


def test_a_model_that_cannot_come_back_is_refused_by_name_and_the_others_answer(crowded):
    row = dict.fromkeys(NAMES, 0.5)
    gone = deploy(crowded, "one")
    deploy(crowded, "three")
    shutil.rmtree(gone)
    with crowded.client() as client:
        with pytest.raises(ServingError, match="is not signed"):
            client.predict("one", [row])
        assert client.predict("three", [row])["predictions"]


def test_what_nobody_foresaw_is_counted_and_told_without_its_secrets(capsys):
    faults = Unforeseen()
    error = faults.note(KeyError("a secret"))
    assert isinstance(error, UnforeseenError)
    assert faults.count == 1
    assert "secret" not in str(error)
    assert "KeyError: 'a secret'" in capsys.readouterr().err


def test_a_fault_in_a_route_answers_500_and_the_connection_goes_on(tmp_path):
    from platform_assets.stages.serving.http import Connection, Exchange, Head, HttpServer
    from platform_assets.stages.serving.replies import refuse

    sent: list[bytes] = []

    class Transport:
        def get_extra_info(self, name: str) -> tuple[str, int] | None:
            return ("127.0.0.1", 1) if name == "peername" else None

        def write(self, data: bytes) -> None:
            sent.append(data)

    http = HttpServer(lambda exchange: refuse(exchange, Unforeseen().note(ValueError())), refuse)
    connection = Connection(http)
    connection.connection_made(Transport())
    for _ in range(2):
        connection.data_received(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n")
    assert [data[:12] for data in sent] == [b"HTTP/1.1 500"] * 2
    assert "fault of its own" in json.loads(sent[0].partition(b"\r\n\r\n")[2])["error"]
    assert not Exchange(connection, Head()).answered
