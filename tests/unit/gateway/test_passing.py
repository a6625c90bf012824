"""What gets through to a real Dagster web server, and what does not."""

from __future__ import annotations

import httpx
import pytest
from gateway_site import Behind, fill

RUNS = "query Runs { runsOrError { ... on Runs { results { runId } } } }"
LAUNCH = "mutation { launchRun(executionParams: {selector: {name: 1}}) { __typename } }"


def said(reply: httpx.Response) -> str:
    return reply.json()["errors"][0]["message"]


def test_a_reader_reads_and_a_stranger_does_not(behind: Behind) -> None:
    run = fill(behind.instances["*"], secret="falcon")
    with behind.client("viewer") as client:
        reply = client.post("/graphql", json={"query": RUNS, "operationName": "Runs", "variables": {}})
        assert reply.status_code == 200
        assert run in reply.text
        assert "falcon" in client.get(f"/logs/{run}/compute_logs/step/out").text
        assert client.get("/server_info").json()["dagster_version"]
        assert client.get(f"/download_debug/{run}").status_code == 200
        assert "<!DOCTYPE html>" in client.get("/runs").text
    with behind.client() as stranger:
        for path in ("/server_info", f"/logs/{run}/compute_logs/step/out", f"/download_debug/{run}"):
            assert stranger.get(path).status_code == 401
        reply = stranger.post("/graphql", json={"query": RUNS})
        assert (reply.status_code, reply.headers["www-authenticate"]) == (401, "Bearer")
        assert "falcon" not in reply.text
        assert stranger.get("/runs", headers={"Accept": "text/html"}).headers["location"] == "/auth/login?next=/runs"


@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("/graphql", 'mutation { x: setConcurrencyLimit(concurrencyKey: "a", limit: 1) }'),
        ("/graphql", "mutation { setNuxSeen ...F } fragment F on Mutation { wipeAssets(assetPartitionRanges: []) { __typename } }"),
        ("/graphql", LAUNCH),
        ("/graphql", "mutation { reloadWorkspace { __typename } }"),
    ],
)
def test_a_viewer_changes_nothing(behind: Behind, path: str, query: str) -> None:
    with behind.client("viewer") as client:
        reply = client.post(path, json={"query": query})
    assert reply.status_code == 403
    assert "you may not" in said(reply)
    assert behind.instances["*"].event_log_storage.get_concurrency_keys() == set()


def test_external_events_need_an_admin_and_are_audited(behind: Behind) -> None:
    with behind.client("operator") as client:
        assert client.post("/report_asset_materialization/outside", json={}).status_code == 403
    with behind.client("admin", subject="badr") as client:
        assert client.post("/report_asset_materialization/outside", json={}).status_code == 200
        assert client.post("/report_asset_materialization/outside?description=x", content=b"{}").status_code == 400
    found = behind.audited("gateway_passed")[-1]
    assert (found["actor"], found["detail"]["actions"], found["subject"]) == ("badr (falaj)", ["report"], "deployment/*")
    assert behind.gateway.guard.audit.verify()


def test_what_changes_something_is_audited_before_it_is_sent_on(behind: Behind) -> None:
    with behind.client("admin", subject="badr") as client:
        limit = 'mutation L { setConcurrencyLimit(concurrencyKey: "gpu", limit: 1) }'
        assert client.post("/graphql", json={"query": limit}).status_code == 200
        client.post("/graphql", json={"query": 'mutation { deleteConcurrencyLimit(concurrencyKey: "gpu") }'})
    found = behind.audited("gateway_passed")[-2]["detail"]
    assert (found["fields"], found["operation"], found["actions"]) == (["setConcurrencyLimit"], "L", ["configure"])


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        ({"json": [{"query": RUNS}]}, 400),
        ({"json": {"query": RUNS, "id": 1}}, 400),
        ({"content": RUNS, "headers": {"Content-Type": "application/graphql"}}, 400),
        ({"data": {"query": RUNS}}, 400),
        ({"files": {"query": b"x"}}, 400),
        ({"content": b'{"query": "{ version }"}', "headers": {"Content-Type": "text/plain"}}, 400),
        ({"content": b'{"query": "{ version }"}', "headers": {"Content-Type": "application/json; charset=utf-16"}}, 400),
        ({"content": b'{"query": "{ version }"}', "headers": {"Content-Type": "application/json", "Content-Encoding": "gzip"}}, 400),
        ({"json": {"query": RUNS}, "params": {"query": LAUNCH}}, 400),
        ({"content": b'{"query": "{ version }", "variables": {"a": NaN}}', "headers": {"Content-Type": "application/json"}}, 400),
        ({"content": b"{" * 100_000, "headers": {"Content-Type": "application/json"}}, 400),
        ({"content": b" " * (5 << 20), "headers": {"Content-Type": "application/json"}}, 400),
        ({"json": {"query": "{ version }"}, "headers": {"Content-Type": "application/json;charset=UTF-8"}}, 200),
    ],
)
def test_only_one_plain_json_request_goes_through(behind: Behind, sent: dict, status: int) -> None:
    with behind.client("admin") as client:
        assert client.post("/graphql", **sent).status_code == status


def test_operations_in_the_address_are_refused(behind: Behind) -> None:
    with behind.client("admin") as client:
        for method in ("GET", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH"):
            assert client.request(method, "/graphql", params={"query": LAUNCH}).status_code == 400


@pytest.mark.parametrize(
    "path",
    [
        "/logs/%2e%2e/%2e%2e/keys",
        "/logs/..%2f..%2fkeys",
        "/logs/%252e%252e/x",
        "//graphql",
        "/logs/%5c..%5ckeys",
        "/a%00b",
        "/graphql/",
        "/auth/../graphql",
    ],
)
def test_a_path_with_two_readings_is_refused(behind: Behind, path: str) -> None:
    import http.client

    connection = http.client.HTTPConnection(behind.url.removeprefix("http://"), timeout=10)  # sends a path as it is
    connection.request("GET", path, headers={"Authorization": f"Bearer {behind.token('admin')}"})
    assert connection.getresponse().status in (400, 404)


def test_errors_of_dagster_come_without_their_stack(behind: Behind) -> None:
    with behind.client("admin") as client:
        reply = client.post("/graphql", json={"query": '{ logsForRun(runId: "x", afterCursor: "no cursor") { __typename } }'})
        assert reply.status_code < 500
        assert "Traceback" not in reply.text
        assert ".py" not in reply.text


def test_another_host_name_is_refused(behind: Behind) -> None:
    with behind.client("admin") as client:
        assert client.get("/server_info", headers={"Host": "evil.example"}).status_code == 400


def test_nobody_without_a_token_or_session_learns_whether_something_exists(behind: Behind) -> None:
    with behind.client() as client:
        replies = {client.get(path).text for path in ("/server_info", "/logs/x/y/z", "/nothing", "/notebook?path=a.ipynb")}
    assert len(replies) == 1


def test_more_than_the_rate_is_told_to_wait(behind: Behind) -> None:
    from platform_assets.identity.limits import Buckets

    behind.gateway.guard.buckets = Buckets(per_second=0.01, burst=3)
    with behind.client("viewer", subject="hasty") as client:
        replies = [client.get("/server_info") for _ in range(5)]
        assert [reply.status_code for reply in replies] == [200, 200, 200, 429, 429]
        assert int(replies[-1].headers["retry-after"]) > 1
    with behind.client("viewer", subject="patient") as client:
        assert client.get("/server_info").status_code == 200


def test_guessing_tokens_locks_the_address_but_not_who_is_known(behind: Behind) -> None:
    with behind.client("viewer") as known, behind.client() as guesser:
        assert known.get("/server_info").status_code == 200
        replies = [guesser.get("/server_info", headers={"Authorization": f"Bearer {number}"}).status_code for number in range(12)]
        assert replies == [401] * 10 + [429] * 2
        assert known.get("/server_info").status_code == 200
    assert behind.audited("locked_out")[-1]["actor"] == "127.0.0.1"
    behind.forgive()
