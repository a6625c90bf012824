"""The paths of Dagster's web server, classified: which method, what is done by it. GraphQL has its own module."""

from __future__ import annotations

import re
from dataclasses import dataclass

from platform_assets.errors import RequestError
from platform_assets.identity.actions import Action

GRAPHQL, MLFLOW = "/graphql", "/mlflow"
TAKEN = frozenset({"auth", "events", "healthz", "mlflow"})  # first parts of addresses that are the gateway's own: no tenant's name
_MOST_CHARACTERS = 4096
# What a path may hold once decoded; whatever two readers could take differently (dots, doubled or back slashes, control characters) is out.
_PLAIN = re.compile(r"/(?:[^/\\\x00-\x1f\x7f%]+/)*[^/\\\x00-\x1f\x7f%]*")
_REPORTS = ("/report_asset_materialization/", "/report_asset_check/", "/report_asset_observation/")
_NOTEBOOKS = ("/notebook", "/dagit/notebook")


@dataclass(frozen=True)
class Door:
    """One way in: its action, and whether a JSON body comes with it."""

    action: Action
    has_body: bool = False


def is_plain(path: str) -> bool:
    """Whether a decoded path has one reading only."""
    return len(path) <= _MOST_CHARACTERS and bool(_PLAIN.fullmatch(path)) and not any(part in (".", "..") for part in path.split("/"))


def find_door(method: str, path: str) -> Door:
    """Return the door that a decoded path is; RequestError where method or path fit none. `/graphql` is judged by its document."""
    if not is_plain(path):
        raise RequestError("the path holds what no address of the web UI holds: dots, doubled or encoded slashes, control characters")
    if path.rstrip("/") == GRAPHQL:
        raise RequestError("GraphQL is asked by POST of application/json to /graphql, or over a websocket")
    if path.startswith(_REPORTS):
        if method != "POST":
            raise RequestError(f"{path.split('/')[1]} takes POST of application/json; {method} was sent")
        return Door(Action.REPORT, has_body=True)
    if method not in ("GET", "HEAD"):
        raise RequestError(f"{method} is not taken here; pages and files are read with GET")
    return Door(Action.NOTEBOOK if path.rstrip("/") in _NOTEBOOKS else Action.READ)
