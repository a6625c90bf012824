"""Unix sockets under FALAJ_HOME: reached by whoever may enter their folder (mode 0700), and by no port."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from pathlib import Path


def short_path(path: Path) -> str:
    """Return a name of this socket for bind and connect: the kernel takes 107 bytes, and homes lie deep. The folder stays open for good."""
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    return f"/proc/self/fd/{folder}/{path.name}"


def listen(path: Path) -> socket.socket:
    """Bind a socket here, for its user alone; one that a killed process left is replaced."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.parent.chmod(0o700)
    with suppress(FileNotFoundError):
        path.unlink()
    opened = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    opened.bind(short_path(path))
    path.chmod(0o600)
    return opened
