"""Waiting for an API server that is away: dagster-k8s itself gives up after half a minute, which an upgrade of a control plane exceeds."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TypeVar

from dagster_k8s.client import DagsterK8sAPIRetryLimitExceeded
from urllib3.exceptions import HTTPError

T = TypeVar("T")
AWAY = (DagsterK8sAPIRetryLimitExceeded, HTTPError)  # it answers 5xx, or nothing
_PAUSE_SECONDS = 1.0
_LOG = logging.getLogger(__name__)


def patiently(ask: Callable[[], T], *, seconds: float) -> T:
    """Return what `ask` returns; where the API server is away it is asked again, for so long and no longer.

    `ask` may be heard although no answer came: it has to be one that can be asked twice.
    """
    until = time.monotonic() + seconds
    while True:
        try:
            return ask()
        except AWAY as error:
            if time.monotonic() > until:
                raise
            _LOG.warning("The API server does not answer; it is asked again for %.0f s: %s", until - time.monotonic(), error)
            time.sleep(_PAUSE_SECONDS)
