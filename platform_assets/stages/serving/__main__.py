"""Command line of the inference server: `python -m platform_assets.stages.serving --serving DIR ...`."""

from __future__ import annotations

import argparse
import ctypes
import os
import signal
import sys
from pathlib import Path

from platform_assets.errors import FalajError
from platform_assets.stages.serving.server import ServerConfig, run_server

_PR_SET_PDEATHSIG = 1  # prctl(2)


def main(arguments: list[str] | None = None) -> int:
    """Read the command line and serve; the exit status is 1 where it could not start."""
    parser = argparse.ArgumentParser(prog="python -m platform_assets.stages.serving", description="Falaj's inference server for CPUs")
    parser.add_argument("--serving", type=Path, required=True, help="folder of state and prediction log")
    parser.add_argument("--host", default="127.0.0.1", help="a host that is not loopback makes tokens mandatory")
    parser.add_argument("--port", type=int, default=8151, help="0 takes a free one")
    parser.add_argument("--keys", type=Path, help="folder of the public key that verifies tokens")
    parser.add_argument("--online", type=Path, help="file of the online feature store")
    parser.add_argument("--ready-file", type=Path, help="written as {pid, url} once the server listens")
    parser.add_argument("--die-with-parent", action="store_true", help="end when the starting process ends")
    options = parser.parse_args(arguments)
    if options.die_with_parent:
        _die_with_parent()
    try:
        run_server(
            ServerConfig(
                serving=options.serving.absolute(),
                host=options.host,
                port=options.port,
                keys=options.keys,
                online=options.online,
                ready_file=options.ready_file,
            )
        )
    except FalajError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def _die_with_parent() -> None:
    parent = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it ended between the two calls
        sys.exit(1)


if __name__ == "__main__":
    sys.exit(main())
