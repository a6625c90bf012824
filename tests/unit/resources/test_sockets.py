"""Unix sockets in a folder that is their user's alone, however deep it lies."""

from __future__ import annotations

import shutil
import socket
import threading
from pathlib import Path

import pytest

from resources.sockets import listen, short_path


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def ask(path: Path) -> bytes:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(10)
        client.connect(short_path(path))
        return client.recv(10)


def serve(path: Path, word: bytes) -> socket.socket:
    """Listen, and say this word to everybody who comes."""
    opened = listen(path)
    opened.listen(64)

    def answer() -> None:
        while True:
            try:
                caller, _ = opened.accept()
            except OSError:
                return
            with caller:
                caller.sendall(word)

    threading.Thread(target=answer, daemon=True).start()
    return opened


def test_a_socket_deeper_than_the_kernel_takes_is_its_users_alone(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 60) / ("e" * 60) / "run" / "web.sock"
    with serve(deep, b"here"):
        assert ask(deep) == b"here"
        assert (deep.stat().st_mode & 0o777, deep.parent.stat().st_mode & 0o777) == (0o600, 0o700)


def test_whoever_connects_again_and_again_opens_its_folder_once(tmp_path: Path) -> None:
    path = tmp_path / "run" / "web.sock"
    with serve(path, b"here"):
        assert ask(path) == b"here"
        before = open_files()
        assert [ask(path) for _ in range(50)] == [b"here"] * 50
        assert open_files() <= before + 1  # the server's end of the last call


def test_who_connects_may_come_before_who_listens(tmp_path: Path) -> None:
    path = tmp_path / "run" / "web.sock"
    with pytest.raises(FileNotFoundError):
        ask(path)
    with serve(path, b"now"):
        assert ask(path) == b"now"


def test_a_socket_and_a_folder_that_were_left_are_replaced(tmp_path: Path) -> None:
    path = tmp_path / "run" / "web.sock"
    serve(path, b"old").close()
    with serve(path, b"new"):
        assert ask(path) == b"new"
    shutil.rmtree(path.parent)
    with serve(path, b"elsewhere"):
        assert ask(path) == b"elsewhere"
