"""Settings of traces, read from the environment by `settings`."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from platform_assets.errors import StateError
from platform_assets.tracing import is_endpoint
from resources.variables import VARIABLES


@dataclass(frozen=True)
class TraceSettings:
    """Where spans are sent, and the share of predictions that are, of those whose caller has not decided it."""

    endpoint: str | None = None
    share: float = 0.01


def read_traces(chosen: Callable[[str], str | None]) -> TraceSettings:
    """Read them from the variables that `chosen` knows; StateError names one that is wrong."""
    endpoint, share = chosen("FALAJ_TRACES"), chosen("FALAJ_TRACES_SHARE") or VARIABLES["FALAJ_TRACES_SHARE"].default
    if endpoint is not None and not is_endpoint(endpoint):
        raise StateError(f"FALAJ_TRACES is {endpoint!r}; right would be the address of an OTLP receiver, such as http://127.0.0.1:4318")
    if not re.fullmatch(r"0|1|0?\.\d{1,6}|1\.0*", share):
        raise StateError(f"FALAJ_TRACES_SHARE is {share!r}; right would be a share from 0 to 1, such as 0.01")
    return TraceSettings(endpoint, float(share))
