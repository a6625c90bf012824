"""The addresses of MLflow's server, classified: what each method does there. What stands in no table is refused.

Left out on purpose, beside what is new in a version to come: creating model versions (their `source` names a place of the server's machine;
the platform alone registers), files of model versions (releases are exported by `falaj release export`), uploads, webhooks, jobs, the AI
gateway with its secrets, scorers and the assistant, which run code.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

from platform_assets.errors import ForbiddenError, RequestError
from platform_assets.identity.actions import Action
from platform_assets.identity.doors import GRAPHQL, Door, is_plain

_API = re.compile(r"/(?:ajax-)?api/[23]\.0/mlflow/(?P<place>[\w/-]+)")
_PAGES = re.compile(r"/|/version|/static-files/.+|/get-artifact")
_READ, _RECORD, _REGISTER, _WIPE = Action.READ, Action.RECORD, Action.REGISTER, Action.WIPE
_MOST_ID = r"[\w-]{1,64}"
_GET = {
    "experiments/get", "experiments/get-by-name", "experiments/search", "runs/get", "metrics/get-history", "metrics/get-history-bulk",
    "metrics/get-history-bulk-interval", "artifacts/list", "registered-models/get", "registered-models/search", "registered-models/alias",
    "registered-models/get-latest-versions", "model-versions/get", "model-versions/search", "server-info", "ui-telemetry", "traces/get",
    "traces/batchGet", "datasets/search",
}  # fmt: skip
_GET_OF_ONE = re.compile(rf"(?:logged-models|traces)/{_MOST_ID}(?:/artifacts/directories)?")
_OTHERS: dict[tuple[str, str], Action] = {
    **{("POST", f"{what}/search"): _READ for what in ("experiments", "runs", "logged-models", "traces", "datasets")},
    ("POST", "experiments/search-datasets"): _READ,
    ("POST", "registered-models/get-latest-versions"): _READ,
    ("POST", "traces/metrics"): _READ,
    **{("POST", f"experiments/{verb}"): _RECORD for verb in ("create", "update", "set-experiment-tag", "delete-experiment-tag")},
    **{("POST", f"runs/{verb}"): _RECORD for verb in ("create", "update", "log-metric", "log-parameter", "log-batch", "log-inputs")},
    **{("POST", f"runs/{verb}"): _RECORD for verb in ("outputs", "set-tag", "delete-tag")},
    **{(method, "registered-models/alias"): _REGISTER for method in ("POST", "DELETE")},
    **{("PATCH", f"{what}/update"): _REGISTER for what in ("registered-models", "model-versions")},
    **{("POST", f"{what}/set-tag"): _REGISTER for what in ("registered-models", "model-versions")},
    **{("DELETE", f"{what}/delete-tag"): _REGISTER for what in ("registered-models", "model-versions")},
    **{("POST", f"{what}/{verb}"): _WIPE for what in ("experiments", "runs") for verb in ("delete", "restore")},
    **{("DELETE", f"{what}/delete"): _WIPE for what in ("registered-models", "model-versions")},
}


def find_mlflow_door(method: str, path: str, query: str = "") -> Door:
    """Return the door that a decoded path within MLflow is; `/graphql` is judged by its document.

    RequestError where the address has more than one reading, ForbiddenError where no policy speaks of it.
    """
    if not is_plain(path):
        raise RequestError("the path holds what no address of MLflow holds: dots, doubled or encoded slashes, control characters")
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name == "path" and not _is_relative(value):
            raise RequestError(
                "path must name a file within the run's artefacts: no dots that lead upwards, no beginning slash, no address"
            )
    if method in ("GET", "HEAD") and _PAGES.fullmatch(path):
        return Door(_READ)
    found = _API.fullmatch(path)
    place = found["place"] if found else ""
    if method in ("GET", "HEAD") and (place in _GET or _GET_OF_ONE.fullmatch(place)):
        return Door(_READ)
    action = _OTHERS.get((method, place))
    if action is None or path == GRAPHQL:
        raise ForbiddenError(f"{method} {path[:200]} is not one that policies speak of here")
    return Door(action, has_body=True)


def check_mlflow_body(path: str, body: Any) -> None:
    """Refuse a body that is no object, or lets an experiment's artefacts lie anywhere on the server's machine, which could then be read."""
    if not isinstance(body, Mapping):
        raise RequestError("the body must be one JSON object")
    if path.endswith("/experiments/create") and body.get("artifact_location"):
        raise ForbiddenError("where artefacts lie is not chosen by who asks; leave artifact_location out")


def _is_relative(value: str) -> bool:
    return not value.startswith("/") and ".." not in value.split("/") and not re.search(r"[\\%:\x00-\x1f]", value)
