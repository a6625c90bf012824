"""Running servers for the tests of this room."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from serving_process import Server


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A running server without any model."""
    made = Server(tmp_path)
    made.start()
    yield made
    if made.process.poll() is None:
        assert made.kill(signal.SIGTERM) == ""


@pytest.fixture
def live(server: Server) -> Server:
    """A running server with one live release."""
    server.deploy()
    return server
