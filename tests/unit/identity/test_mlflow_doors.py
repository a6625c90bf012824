"""MLflow's addresses, classified: what reads, what writes, and everything else refused."""

from __future__ import annotations

import re
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from platform_assets.errors import FalajError, ForbiddenError, RequestError
from platform_assets.identity import mlflow_doors
from platform_assets.identity.actions import Action
from platform_assets.identity.mlflow_doors import check_mlflow_body, find_mlflow_door


@pytest.fixture(scope="module")
def endpoints() -> set[tuple[str, str]]:
    """Methods and addresses of the installed MLflow's API, an id for each parameter."""
    from mlflow.server.handlers import get_endpoints

    return {(method, re.sub(r"<[^>]+>", "an-id", path)) for path, _, methods in get_endpoints() for method in methods if "/mlflow/" in path}


@pytest.mark.parametrize(
    ("method", "path", "action"),
    [
        ("GET", "/", Action.READ),
        ("GET", "/static-files/static/js/main.1f.js", Action.READ),
        ("GET", "/get-artifact", Action.READ),
        ("GET", "/api/2.0/mlflow/runs/get", Action.READ),
        ("POST", "/ajax-api/2.0/mlflow/runs/search", Action.READ),
        ("GET", "/api/2.0/mlflow/logged-models/m-1/artifacts/directories", Action.READ),
        ("POST", "/api/2.0/mlflow/runs/log-batch", Action.RECORD),
        ("POST", "/api/2.0/mlflow/registered-models/alias", Action.REGISTER),
        ("GET", "/api/2.0/mlflow/registered-models/alias", Action.READ),
        ("DELETE", "/api/2.0/mlflow/model-versions/delete", Action.WIPE),
        ("POST", "/api/2.0/mlflow/experiments/delete", Action.WIPE),
    ],
)
def test_each_address_is_what_it_does(method: str, path: str, action: Action) -> None:
    door = find_mlflow_door(method, path)
    assert door.action == action
    assert door.has_body == (method != "GET")


def test_every_address_that_is_let_through_is_one_of_the_installed_mlflow(endpoints: set[tuple[str, str]]) -> None:
    known = {(method, path.partition("/mlflow/")[2]) for method, path in endpoints}
    served = {("GET", "metrics/get-history-bulk"), ("GET", "ui-telemetry"), ("POST", "experiments/search-datasets")}  # by routes of its app
    named = {("GET", place) for place in mlflow_doors._GET} | set(mlflow_doors._OTHERS)
    assert named <= known | served


def test_what_reads_is_never_more_than_a_search_and_what_runs_code_or_keeps_secrets_is_refused(endpoints: set[tuple[str, str]]) -> None:
    through = set()
    for method, path in endpoints:
        try:
            door = find_mlflow_door(method, path)
        except ForbiddenError:
            continue
        through.add(path)
        if door.action == Action.READ and method != "GET":
            assert path.endswith(("search", "search-datasets", "get-latest-versions", "traces/metrics")), path
    dangerous = (
        "/gateway/",
        "secret",
        "webhook",
        "scorer",
        "prompt-optimization",
        "presigned",
        "workspaces",
        "model-versions/create",
        "download-uri",
    )
    assert not [path for path in through if any(word in path for word in dangerous)]
    assert len(through) > 40


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/api/2.0/mlflow/model-versions/create"),
        ("GET", "/model-versions/get-artifact"),
        ("PUT", "/api/2.0/mlflow-artifacts/artifacts/x"),
        ("POST", "/ajax-api/2.0/mlflow/upload-artifact"),
        ("POST", "/ajax-api/2.0/mlflow/gateway-proxy"),
        ("POST", "/ajax-api/3.0/mlflow/assistant/message"),
        ("POST", "/ajax-api/3.0/jobs/"),
        ("POST", "/v1/traces"),
        ("POST", "/get-artifact"),
        ("GET", "/graphql"),
        ("POST", "/api/2.0/mlflow/runs/get"),
        ("PATCH", "/api/2.0/mlflow/runs/search"),
        ("GET", "/api/4.0/mlflow/runs/get"),
        ("GET", "/api/2.0/mlflow/runs/get/more"),
    ],
)
def test_what_stands_in_no_table_is_refused(method: str, path: str) -> None:
    with pytest.raises(ForbiddenError, match="not one that policies speak of"):
        find_mlflow_door(method, path)


@pytest.mark.parametrize(
    "path", ["/static-files/../x", "//api/2.0/mlflow/runs/get", "/api/2.0/mlflow/./runs/get", "/get-artifact\x00", "/a\\b", "/x" * 3000]
)
def test_an_address_with_two_readings_is_refused(path: str) -> None:
    with pytest.raises(RequestError):
        find_mlflow_door("GET", path)


@pytest.mark.parametrize(
    "path", ["../keys/pseudonym.key", "/etc/passwd", "a/../../b", "file:///etc/passwd", "%2e%2e/x", "..%2fx", "a\\..\\b", ".."]
)
def test_a_file_outside_of_the_runs_artefacts_is_not_asked_for(path: str) -> None:
    from urllib.parse import quote

    with pytest.raises(RequestError, match="path must name a file within"):
        find_mlflow_door("GET", "/get-artifact", f"run_uuid=1&path={quote(path, safe='')}")
    with pytest.raises(RequestError, match="path must name a file within"):
        find_mlflow_door("GET", "/get-artifact", f"path=fine&run_uuid=1&path={quote(path, safe='')}")
    assert find_mlflow_door("GET", "/get-artifact", "run_uuid=1&path=pictures/curve.png").action == Action.READ


def test_where_artefacts_lie_is_not_chosen_by_who_asks() -> None:
    path = "/api/2.0/mlflow/experiments/create"
    check_mlflow_body(path, {"name": "mine"})
    with pytest.raises(ForbiddenError, match="leave artifact_location out"):
        check_mlflow_body(path, {"name": "mine", "artifact_location": "file:///etc"})
    for body in ([], "x", None, 3):
        with pytest.raises(RequestError, match="one JSON object"):
            check_mlflow_body(path, body)


@given(st.sampled_from(["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"]), st.text(max_size=60), st.text(max_size=60))
def test_no_address_breaks_it(method: str, path: str, query: str) -> None:
    with suppress(FalajError):
        assert find_mlflow_door(method, f"/{path}", query).action in (Action.READ, Action.RECORD, Action.REGISTER, Action.WIPE)
