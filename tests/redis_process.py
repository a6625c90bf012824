"""A real Redis on loopback, for the tests of what can live in one."""

from __future__ import annotations

import itertools
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from platform_assets.stages.serving.online_redis import RedisPlace

PATIENCE_SECONDS = 20
_NUMBERS = itertools.count(1)


@contextmanager
def run_redis(
    folder: Path, *, port: int | None = None, tls: tuple[Path, Path, Path] | None = None, password: str | None = None
) -> Iterator[str]:
    """Start a server that keeps an append-only file in the folder; yield its URL. `tls` as for PostgreSQL: it takes nothing else then."""
    program = shutil.which("redis-server")
    assert program is not None
    if port is None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
    command = [program, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", "", "--appendonly", "yes"]
    if tls is not None:
        certificate, key, authority = map(str, tls)
        command[1:3] = ["--port", "0", "--tls-port", str(port), "--tls-cert-file", certificate, "--tls-key-file", key]
        command += ["--tls-ca-cert-file", authority]
    if password is not None:
        command += ["--requirepass", password]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)
        yield f"{'redis' if tls is None else 'rediss'}://127.0.0.1:{port}/0"
    finally:
        server.terminate()
        server.wait(PATIENCE_SECONDS)


def own_redis(url: str) -> RedisPlace:
    """An empty database of its own on a shared server, beside number 0, which the queues of events have."""
    import redis

    address = f"{url.rpartition('/')[0]}/{1 + next(_NUMBERS) % 15}"
    with redis.Redis.from_url(address) as client:
        client.flushdb()
    return RedisPlace(address)
