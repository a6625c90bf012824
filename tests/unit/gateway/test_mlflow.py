"""A real MLflow server behind the gateway: the same people, tokens and tenants; reads and writes told apart; no other way in."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import oidc_provider_mock
import psutil
import pytest
from gateway_site import Behind, run_gateway

from platform_assets.gateway.login import OidcClient
from platform_assets.gateway.sites import Site
from platform_assets.identity.policy import Deployment
from resources.issuers import OidcIssuer
from resources.mlflow_registry import MlflowRegistry
from resources.settings import Home, Settings, child_environment

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]
API = "/hotels/mlflow/api/2.0/mlflow"
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-dev-shm-usage")


@dataclass
class Server:
    """MLflow's process, the site that it is, and a training that the platform logged."""

    process: subprocess.Popen[bytes]
    site: Site
    home: Home
    run: str


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home = Home(tmp_path_factory.mktemp("mlflow") / "home")
    settings = Settings(home=home, environment="laptop", defs_root=home.root, webhook_url=None, serve_port=0, web_port=0)
    registry = MlflowRegistry(home.mlflow)
    run = registry.log_training("cancellations", {"width": 16}, {"auroc": 0.91}, [], {"who": "platform"})
    registry.register("cancellations", home.releases / "first", run_id=run, tags={})
    home.keys.mkdir()
    home.run.mkdir(mode=0o700)
    (home.keys / "pseudonym.key").write_text("cormorant")
    command = [sys.executable, "-m", "resources.mlflow_server", str(home.mlflow_socket), "/hotels/mlflow"]
    process = subprocess.Popen(command, env=child_environment(settings))
    try:
        yield Server(process, Site(Deployment("hotels"), home.mlflow_socket, "/hotels/mlflow", "mlflow"), home, run)
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture(scope="module")
def shared(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Behind]:
    with run_gateway(tmp_path_factory.mktemp("gateway"), (), more=[server.site]) as found:
        deadline = time.monotonic() + 120
        while httpx.get(f"{found.url}/healthz").status_code != 200:
            assert server.process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)
        yield found


@pytest.fixture
def behind(shared: Behind) -> Behind:
    shared.forgive()
    return shared


@pytest.fixture
def program(behind: Behind, monkeypatch: pytest.MonkeyPatch) -> Any:
    """MLflow's own client with a token of these roles, at the gateway's address."""
    from mlflow.tracking import MlflowClient

    # Feast offers MLflow's client a plug-in that adds no header here; loading it costs 15 CPU seconds.
    monkeypatch.setattr("mlflow.utils.plugins.get_entry_points", lambda _: [])

    def open_client(*roles: str, tenant: str = "hotels") -> MlflowClient:
        monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", behind.token(*roles, tenants=[tenant]) if roles else "")
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        return MlflowClient(tracking_uri=f"{behind.url}/hotels/mlflow", registry_uri=f"{behind.url}/hotels/mlflow")

    return open_client


def refused(call: Any, *arguments: Any, said: str = "you may not") -> None:
    from mlflow.exceptions import MlflowException

    with pytest.raises(MlflowException, match=said):
        call(*arguments)


def test_a_reader_s_program_reads_and_writes_nothing(behind: Behind, program: Any, server: Server) -> None:
    client = program("viewer")
    (experiment,) = client.search_experiments(filter_string="name = 'cancellations'")
    (found,) = client.search_runs([experiment.experiment_id])
    assert (found.info.run_id, found.data.metrics["auroc"], found.data.params) == (server.run, 0.91, {"width": "16"})
    refused(client.log_metric, server.run, "auroc", 1.0)
    refused(client.create_experiment, "mine")
    refused(client.set_registered_model_alias, "cancellations", "champion", "1")
    refused(client.delete_run, server.run)
    assert client.get_run(server.run).data.metrics == {"auroc": 0.91}


def test_an_operator_s_program_records_which_is_audited_and_neither_registers_nor_deletes(behind: Behind, program: Any) -> None:
    client = program("operator")
    run = client.create_run(client.create_experiment("notebook")).info.run_id
    client.log_metric(run, "loss", 0.5)
    client.log_param(run, "width", 8)
    client.set_terminated(run)
    assert client.get_run(run).data.metrics == {"loss": 0.5}
    found = behind.audited("gateway_passed")[-1]
    assert (found["actor"], found["subject"], found["detail"]["actions"]) == ("amal (falaj)", "deployment/hotels", ["record"])
    assert found["detail"]["path"] == "/mlflow/api/2.0/mlflow/runs/update"
    refused(client.delete_run, run)
    refused(client.create_model_version, "cancellations", "file:///etc", said="not one that policies speak of")
    program("admin").delete_run(run)
    assert behind.audited("gateway_passed")[-1]["detail"]["actions"] == ["wipe"]


def test_strangers_and_other_tenants_read_nothing(behind: Behind, program: Any, server: Server) -> None:
    refused(program().get_run, server.run, said="needs a login, or a token")
    refused(program("admin", tenant="banks").get_run, server.run, said="you may not read here")
    doors = [f"{API}/runs/get?run_id={server.run}", "/hotels/mlflow/", f"/hotels/mlflow/get-artifact?run_uuid={server.run}&path=x"]
    tokens = {"none": None, "another audience": behind.token("admin", audience="falaj-serving"), "garbage": "x.y.z"}
    for name, token in tokens.items():
        for door in doors:
            reply = httpx.get(f"{behind.url}{door}", headers={"Authorization": f"Bearer {token}"} if token else {})
            assert reply.status_code == 401, (name, door)
            assert server.run not in reply.text
        behind.forgive()
    asyncio.run(behind.gateway.guard.tell_denials())
    assert "read in hotels" in str(behind.audited("denied"))


def test_nothing_but_the_gateway_reaches_the_server(server: Server) -> None:
    assert not [found for found in psutil.Process(server.process.pid).net_connections("inet") if found.status == psutil.CONN_LISTEN]
    assert server.home.mlflow_socket.parent.stat().st_mode & 0o777 == 0o700


def test_files_of_the_server_s_machine_are_not_to_be_had(behind: Behind, server: Server) -> None:
    key = server.home.keys / "pseudonym.key"
    with behind.client("admin", tenants=["hotels"]) as client:
        made = client.post(f"{API}/experiments/create", json={"name": "trap", "artifact_location": server.home.keys.as_uri()})
        assert made.status_code == 403
        for path in ("../../../keys/pseudonym.key", str(key), key.as_uri(), "%2e%2e/%2e%2e/keys/pseudonym.key"):
            reply = client.get("/hotels/mlflow/get-artifact", params={"run_uuid": server.run, "path": path})
            assert reply.status_code == 400, path
            assert "cormorant" not in reply.text
        listed = client.get(f"{API}/artifacts/list", params={"run_id": server.run, "path": "../../keys"})
        assert listed.status_code == 400
        assert client.put("/hotels/mlflow/api/2.0/mlflow-artifacts/artifacts/x", content=b"x").status_code == 403


def test_graphql_is_parsed_here_too(behind: Behind, server: Server) -> None:
    query = f'query One {{ mlflowGetRun(input: {{runId: "{server.run}"}}) {{ run {{ info {{ runId }} }} }} }}'
    with behind.client("viewer", tenants=["hotels"]) as client:
        assert client.post("/hotels/mlflow/graphql", json={"query": query, "operationName": "One", "variables": {}}).json()["data"][
            "mlflowGetRun"
        ]
        sent = {"query": "mutation { x: testMutation { __typename } }"}
        assert client.post("/hotels/mlflow/graphql", json=sent).status_code == 403
        assert client.post("/hotels/mlflow/graphql", json=[sent]).status_code == 400


def test_malformed_requests_get_a_sentence_and_no_trace(behind: Behind) -> None:
    with behind.client("operator", tenants=["hotels"]) as client:
        for body in (b"{", b"[]", b'"x"', b'{"run_id": ["x"]}', b'{"run_id": "no-such", "key": "a", "value": "b"}'):
            reply = client.post(f"{API}/runs/log-metric", content=body, headers={"Content-Type": "application/json"})
            assert 400 <= reply.status_code < 500, body
            assert "Traceback" not in reply.text
        assert client.post(f"{API}/runs/log-metric", content=b"run_id=1").status_code == 400


def test_a_person_logs_in_at_the_issuer_with_a_browser_and_sees_the_training(server: Server, shared: Behind, tmp_path: Path) -> None:
    """Chromium; what MLflow's page asks for as that person is let through, what they may not do is not."""
    from playwright.sync_api import sync_playwright

    del shared  # the server is up
    if shutil.which("chromium") is None:
        pytest.skip("Chromium is not installed")
    people = [oidc_provider_mock.User(sub="amal", claims={"roles": ["viewer"], "tenants": ["hotels"]})]
    with oidc_provider_mock.run_server_in_thread(user_claims=people) as issuer:
        (tmp_path / "secret").write_text("swordfish")
        client = OidcClient(OidcIssuer(f"http://localhost:{issuer.server_port}"), "falaj", tmp_path / "secret")
        with run_gateway(tmp_path, (), oidc=client, more=[server.site]) as behind, sync_playwright() as play:
            browser = play.chromium.launch(executable_path=shutil.which("chromium"), args=list(FLAGS))
            page = browser.new_page()
            page.set_default_timeout(60_000)
            page.goto(f"{behind.url}/hotels/mlflow")
            assert page.url.startswith(client.issuer.url)
            page.fill("input[name=sub]", "amal")
            page.click("button")
            page.wait_for_url(f"{behind.url}/hotels/mlflow/**")
            page.goto(f"{behind.url}/hotels/mlflow/#/experiments")
            page.get_by_text("cancellations").first.wait_for()
            said = page.evaluate(
                "fetch('ajax-api/2.0/mlflow/runs/delete', {method: 'POST', headers: {'Content-Type': 'application/json'},"
                f" body: JSON.stringify({{run_id: '{server.run}'}})}}).then(reply => reply.text())"
            )
            assert "you may not wipe" in said
            browser.close()
