"""Two tenants, each with a web server of its own: one tries to read the other's run, asset, log and event by every door."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator

import pytest
from gateway_site import Behind, doors, fill, questions, run_gateway, spellings
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection, connect

BANKS, HOTELS = "banks", "hotels"
SECRET = "cormorant"  # a word of the banks


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Behind, str]]:
    with run_gateway(tmp_path_factory.mktemp("tenants"), (HOTELS, BANKS)) as behind:
        fill(behind.instances[HOTELS], secret="heron")
        yield behind, fill(behind.instances[BANKS], secret=SECRET)


@pytest.fixture
def behind(two: tuple[Behind, str]) -> Behind:
    two[0].forgive()
    return two[0]


@pytest.fixture
def run(two: tuple[Behind, str]) -> str:
    return two[1]


def queries(run: str) -> list[str]:
    return [
        *questions(run, SECRET),
        f'{{ capturedLogs(logKey: ["..", "..", "instance1", "storage", "{run}", "compute_logs", "step"]) {{ stdout }} }}',
        f'{{ capturedLogs(logKey: ["../../instance1/storage/{run}", "compute_logs", "step"]) {{ stdout }} }}',
    ]


def test_the_owner_reads_all_of_it(behind: Behind, run: str) -> None:
    with behind.client("viewer", tenants=[BANKS]) as client:
        found = [SECRET in client.post("/banks/graphql", json={"query": query}).text for query in queries(run)]
        assert all(found)  # the last keys of logs go out of the storage and in again: here they are its own
        assert SECRET in client.get(f"/banks/logs/{run}/compute_logs/step/out").text
        assert client.get(f"/banks/download_debug/{run}").status_code == 200
        assert client.get("/").headers["location"] == "/banks/"
        assert "/banks" in client.get("/banks/").text


@pytest.mark.parametrize("roles", [("viewer",), ("operator",), ("admin",)])
def test_another_tenant_reads_none_of_it_by_any_query(behind: Behind, run: str, roles: tuple[str, ...]) -> None:
    with behind.client(*roles, tenants=[HOTELS]) as client:
        for query in queries(run):
            asked = client.post("/hotels/graphql", json={"query": query})
            assert SECRET not in asked.text.replace(f'"{SECRET}"', "")
            assert "job_" + SECRET not in asked.text
            assert "says " + SECRET not in asked.text
            assert client.post("/banks/graphql", json={"query": query}).status_code == 403


def test_another_tenant_reads_none_of_it_by_any_path(behind: Behind, run: str) -> None:
    token = behind.token("admin", tenants=[HOTELS])
    for prefix in spellings(HOTELS, BANKS):
        for door in doors(run):
            for more in (
                {},
                {"X-Forwarded-Prefix": "/banks", "X-Original-URL": f"/banks/{door}", "X-Falaj-User": "root", "X-Rewrite-URL": "/banks/"},
            ):
                connection = http.client.HTTPConnection(behind.url.removeprefix("http://"), timeout=10)
                connection.request("GET", prefix + door, headers={"Authorization": f"Bearer {token}", **more})
                reply = connection.getresponse()
                text = reply.read()
                assert SECRET.encode() not in text
                assert not (reply.status == 200 and door == f"download_debug/{run}"), prefix
                connection.close()
    behind.forgive()


def talk(behind: Behind, tenant: str, path: str, **headers: str) -> ClientConnection:
    address = behind.url.replace("http", "ws") + path
    sent = {"Authorization": f"Bearer {behind.token('viewer', tenants=[tenant])}", **headers}
    return connect(address, subprotocols=["graphql-ws"], additional_headers=sent, proxy=None)


def start(query: str, **more: object) -> str:
    return json.dumps({"type": "start", "id": "1", "payload": {"query": query, **more}})


def subscribed(run: str) -> str:
    return f'subscription S {{ pipelineRunLogs(runId: "{run}", cursor: null) {{ ... on PipelineRunLogsSubscriptionSuccess {{ messages {{ ... on MessageEvent {{ message }} }} }} }} }}'


def test_the_owner_hears_the_run_s_events_as_they_come(behind: Behind, run: str) -> None:
    with talk(behind, BANKS, "/banks/graphql") as socket:
        socket.send(json.dumps({"type": "connection_init", "payload": {}}))
        assert json.loads(socket.recv(timeout=20))["type"] == "connection_ack"
        socket.send(start(subscribed(run), operationName="S"))
        assert f"event says {SECRET}" in socket.recv(timeout=20)


def test_another_tenant_hears_none_of_it(behind: Behind, run: str) -> None:
    with pytest.raises(InvalidStatus) as refused:
        talk(behind, HOTELS, "/banks/graphql")
    assert refused.value.response.status_code == 403
    with talk(behind, HOTELS, "/hotels/graphql") as socket:
        socket.send(start(subscribed(run)))
        assert SECRET not in socket.recv(timeout=20)


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        (start("subscription { everything }"), "not one that policies speak of"),
        (start('mutation { a: terminateRun(runId: "1") { __typename } }'), "you may not terminate"),
        (start("query A { version } mutation B { reloadWorkspace { __typename } }", operation_name="B"), "you may not reload"),
        (start("query A { version } mutation B { reloadWorkspace { __typename } }", operationName="B"), "you may not reload"),
        (start("query A { version } query B { version }", operation_name="A", operationName="B"), "differ"),
        (json.dumps([{"type": "start"}]), "JSON object"),
        (json.dumps({"type": "start", "id": 3, "payload": {}}), "its id a text"),
        (json.dumps({"type": "subscribe", "id": "1", "payload": {}}), "one of start"),
        ("{", "JSON object"),
    ],
)
def test_what_is_not_permitted_is_refused_on_the_websocket_too(behind: Behind, sent: str, said: str) -> None:
    with talk(behind, HOTELS, "/hotels/graphql") as socket:
        socket.send(sent)
        answer = json.loads(socket.recv(timeout=20))
    assert answer["type"] == "error"
    assert said in answer["payload"]["message"]


@pytest.mark.parametrize("headers", [{"Authorization": ""}, {"Authorization": "Bearer x"}])
def test_a_stranger_opens_no_websocket(behind: Behind, headers: dict[str, str]) -> None:
    with pytest.raises(InvalidStatus):
        talk(behind, HOTELS, "/hotels/graphql", **headers)
    behind.forgive()


def test_a_page_of_another_site_opens_no_websocket_with_the_session(behind: Behind) -> None:
    import httpx

    with httpx.Client(base_url=behind.url) as client:
        client.get(behind.ticket("viewer", tenants=[HOTELS]))
        cookie = "; ".join(f"{name}={value}" for name, value in client.cookies.items())
    address = behind.url.replace("http", "ws") + "/hotels/graphql"
    with pytest.raises(InvalidStatus):
        connect(address, subprotocols=["graphql-ws"], additional_headers={"Cookie": cookie}, origin="https://evil.example", proxy=None)
    with connect(address, subprotocols=["graphql-ws"], additional_headers={"Cookie": cookie}, origin=behind.url, proxy=None) as socket:
        assert socket.subprotocol == "graphql-ws"
        client = httpx.Client(base_url=behind.url, headers={"Cookie": cookie, "Origin": behind.url})
        assert client.post("/auth/logout").status_code == 200
        with pytest.raises(Exception, match="1008"):
            socket.recv(timeout=20)
