"""The tiny main job, run once for all tests that look at what it left."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator

import pytest
from otlp_receiver import run_receiver
from pipeline.tiny import Finished, TinyHome


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Finished]:
    folder = tmp_path_factory.mktemp("main job")  # with a space in it
    with run_receiver() as (traces, spans):
        tiny = TinyHome(folder / "home", web_port=free_port(), traces=traces)
        try:
            answer = tiny.falaj("run", "--json", str(folder / "result.json"))
            assert answer.returncode == 0, answer.stdout
            yield Finished(tiny, answer, json.loads((folder / "result.json").read_text()), tiny.names(), spans)
        finally:
            tiny.end_everything()


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
