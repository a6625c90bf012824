"""A pod's one process: a command run locally, as who the pod is to the API server."""

from __future__ import annotations

import os
import signal
from pathlib import Path

ACCOUNT = "var/run/secrets/kubernetes.io/serviceaccount"


def run_pod(arguments: list[str], environment: dict[str, str], log: str, root: str) -> None:
    """In the forked process: be the command. `root` is where the pod's volumes lie, as its file system would have them."""
    from kubernetes_double import run_command

    if "dagster" in arguments[:3]:
        _find_account_below(Path(root))
        run_command(arguments, environment, log)
        return
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    os.execvpe(arguments[0], arguments, environment)


def _find_account_below(root: Path) -> None:
    """The libraries look for the token under `/var/run`, which is the machine's own here."""
    import dagster_k8s.utils
    from kubernetes.config import incluster_config

    folder = root / ACCOUNT
    incluster_config.SERVICE_TOKEN_FILENAME = str(folder / "token")
    incluster_config.SERVICE_CERT_FILENAME = str(folder / "ca.crt")
    find = dagster_k8s.utils.detect_current_namespace
    find.__defaults__ = (folder / "namespace",)
