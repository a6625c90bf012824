"""A real HTTP server with the interfaces of S3 and KMS (moto's) on loopback, for the tests of what can live in such a store."""

from __future__ import annotations

import itertools
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from kill_points import was_killed

from platform_assets.specs.team import StoreSpec
from resources.s3 import S3

PATIENCE_SECONDS = 60


@contextmanager
def run_s3(folder: Path, *, tls: tuple[Path, Path, Path] | None = None) -> Iterator[StoreSpec]:
    """Start a server; yield settings of a bucket in it. `tls`: its certificate, key, and the authority that it is held to."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, str(Path(__file__).with_name("strict_moto.py")), "-H", "127.0.0.1", "-p", str(port)]
    if tls is not None:
        command += ["-s", "-c", str(tls[0]), "-k", str(tls[1])]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                assert server.poll() is None, "moto's server ended at once"
                assert time.monotonic() < deadline
                time.sleep(0.05)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "credentials").write_text("[default]\naws_access_key_id = falaj\naws_secret_access_key = a%b/c+d\n")
        endpoint = f"http{'s' if tls else ''}://127.0.0.1:{port}"
        spec = StoreSpec(
            url="s3://falaj/team", endpoint=endpoint, kms=endpoint, credentials=folder / "credentials", ca=tls[2] if tls else None
        )  # fmt: skip
        S3(spec).client.create_bucket(Bucket="falaj")
        yield spec
    finally:
        server.terminate()
        server.wait(PATIENCE_SECONDS)


def own_prefix(server: StoreSpec) -> S3:
    """An empty place of its own on a shared server."""
    return S3(server.model_copy(update={"url": f"s3://falaj/{uuid.uuid4().hex[:8]}"}))


def killed_before_request(number: int, work: Callable[[], object]) -> bool:
    """Do the work in a forked child that is killed just before its request of this number; False where it came to its end before."""

    def watched() -> None:
        from botocore.httpsession import URLLib3Session

        send, calls = URLLib3Session.send, itertools.count(1)

        def counted(self: URLLib3Session, request: object) -> object:
            if next(calls) == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return send(self, request)

        URLLib3Session.send = counted
        work()

    return was_killed(watched)
