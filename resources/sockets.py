"""Unix sockets under FALAJ_HOME: reached by whoever may enter their folder (mode 0700), and by no port."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from functools import cache
from pathlib import Path


def short_path(path: Path) -> str:
    """Return a name of this socket for bind and connect: the kernel takes 107 bytes, and homes lie deep.

    Its folder is made where it is missing, since who connects may be first, and stays open for good.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = path.parent.stat()
    return f"/proc/self/fd/{_open(path.parent, found.st_dev, found.st_ino)}/{path.name}"


@cache
def _open(folder: Path, device: int, inode: int) -> int:
    """Open a folder once, however many connect; another folder at its place is another one."""
    del device, inode
    return os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


def listen(path: Path) -> socket.socket:
    """Bind a socket here, for its user alone; one that a killed process left is replaced."""
    name = short_path(path)
    path.parent.chmod(0o700)
    with suppress(FileNotFoundError):
        path.unlink()
    opened = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    opened.bind(name)
    path.chmod(0o600)
    return opened
