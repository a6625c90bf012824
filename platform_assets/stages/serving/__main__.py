"""Command line of the inference server: `python -m platform_assets.stages.serving --serving DIR ...`."""

from __future__ import annotations

import argparse
import ctypes
import math
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

from platform_assets.errors import FalajError
from platform_assets.logs import FORMS, TEXT, say, start_logging
from platform_assets.stages.serving.access import AUDIENCE
from platform_assets.stages.serving.places import read_places
from platform_assets.stages.serving.server import run_server
from platform_assets.stages.serving.tls import TlsFiles
from platform_assets.stages.serving.worker import ServerConfig
from platform_assets.tracing import is_endpoint

_PR_SET_PDEATHSIG = 1  # prctl(2)
_MAX_WORKERS = 256


def main(arguments: list[str] | None = None) -> int:
    """Read the command line and serve; the exit status is 1 where it could not start."""
    parser = argparse.ArgumentParser(prog="python -m platform_assets.stages.serving", description="Falaj's inference server for CPUs")
    parser.add_argument("--serving", type=Path, required=True, help="folder of state and prediction log")
    parser.add_argument("--host", default="127.0.0.1", help="a host that is not loopback makes tokens mandatory")
    parser.add_argument("--port", type=int, default=8151, help="0 takes a free one")
    parser.add_argument(
        "--keys", type=Path, help="folder of the keys that verify tokens and open releases; without it no release is served"
    )
    parser.add_argument("--online", type=Path, help="file of newest feature values")
    parser.add_argument("--team", type=Path, help="a team's settings file: newest values are in its Redis, releases in its store")
    parser.add_argument("--ready-file", type=Path, help="written as {pid, url} once the server listens")
    parser.add_argument("--workers", type=int, default=1, help="processes that answer, one a core; 0 is as many as cores")
    parser.add_argument("--grpc-port", type=int, help="speaks Open Inference Protocol over gRPC, too; left out it does not")
    parser.add_argument("--tls-cert", type=Path, help="certificate chain, PEM; with --tls-key the server speaks HTTPS")
    parser.add_argument("--tls-key", type=Path, help="key of the certificate, PEM; both are read again when they change")
    parser.add_argument("--service-ca", type=Path, help="authorities, PEM, whose certificates services show; all others bring a token")
    parser.add_argument("--oidc-issuer", help="takes tokens of this OIDC issuer, too, by their scope; as its tokens name it")
    parser.add_argument("--oidc-audience", default=AUDIENCE, help="audience that its tokens must have")
    parser.add_argument("--memory-mb", type=int, help="of models a process; beyond it the least recently used are unloaded until asked for")
    parser.add_argument("--follow", type=Path, help="state file of another server: what it has taken live is served here, too")
    parser.add_argument("--close-log-seconds", type=float, default=math.inf, help="age at which a segment of the prediction log is closed")
    parser.add_argument("--log", choices=FORMS, default=TEXT, help="how standard error is written: sentences, or a line of JSON an event")
    parser.add_argument("--traces", help="receiver of traces, OTLP over HTTP; left out nothing is traced")
    parser.add_argument("--traces-share", type=float, default=0.01, help="share of predictions that are traced, unless callers decide it")
    parser.add_argument("--die-with-parent", action="store_true", help="end when the starting process ends")
    options = parser.parse_args(arguments)
    for fault in _faults(options):
        parser.error(fault)
    start_logging("server", options.log)
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
                team=options.team and read_places(options.team.absolute()),
                ready_file=options.ready_file,
                workers=options.workers or len(os.sched_getaffinity(0)),
                tls=TlsFiles(options.tls_cert, options.tls_key, options.service_ca) if options.tls_cert is not None else None,
                oidc=(options.oidc_issuer, options.oidc_audience) if options.oidc_issuer else None,
                grpc_port=options.grpc_port,
                traces=(options.traces, options.traces_share) if options.traces else None,
                memory_bytes=options.memory_mb and options.memory_mb << 20,
                follow=options.follow,
                close_log_seconds=options.close_log_seconds,
            )
        )
    except FalajError as error:
        say(str(error))
        return 1
    return 0


def _faults(options: argparse.Namespace) -> Iterator[str]:
    if (options.tls_cert is None) != (options.tls_key is None):
        yield "--tls-cert and --tls-key go together"
    if options.service_ca is not None and options.tls_cert is None:
        yield "--service-ca needs --tls-cert and --tls-key: certificates are shown over TLS"
    if not 0 <= options.workers <= _MAX_WORKERS:
        yield f"--workers {options.workers}: right would be 0 to {_MAX_WORKERS}"
    if options.memory_mb is not None and options.memory_mb <= 0:
        yield f"--memory-mb {options.memory_mb}: right would be at least 1"
    if options.online is not None and options.team is not None:
        yield "--online and --team exclude each other: newest values are in the one or in the other"
    if not options.close_log_seconds > 0:
        yield f"--close-log-seconds {options.close_log_seconds:g}: right would be more than 0"
    if options.traces is not None and not is_endpoint(options.traces):
        yield f"--traces {options.traces}: right would be the address of an OTLP receiver, such as http://127.0.0.1:4318"
    if not 0 <= options.traces_share <= 1:
        yield f"--traces-share {options.traces_share}: right would be 0 to 1"


def _die_with_parent() -> None:
    parent = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it ended between the two calls
        sys.exit(1)


if __name__ == "__main__":
    sys.exit(main())
