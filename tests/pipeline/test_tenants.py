"""`falaj up --tenants`, running: a home, a code location and a web server each, and nothing of one tenant at any door of another."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import dagster as dg
import httpx
import pytest
import yaml
from gateway_site import doors, fill, questions, spellings
from pipeline.conftest import free_port
from pipeline.tiny import DATASET, DEFS, MODEL, TinyHome
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from platform_assets.errors import StateError
from platform_assets.main_job import site, tenants
from resources.settings import Settings
from resources.tokens import mint_identity

pytestmark = pytest.mark.slow
HOTELS, BANKS, SECRET = "hotels", "banks", "cormorant"
JOBS = "{ repositoriesOrError { ... on RepositoryConnection { nodes { jobs { name } assetGroups { groupName } } } } }"


@dataclass(frozen=True)
class Running:
    """The gateway's address, the home above, and the run of the banks that bears the word."""

    url: str
    settings: Settings
    run: str

    def headers(self, tenant: str, *roles: str) -> dict[str, str]:
        made = mint_identity(self.settings.home.keys, roles=roles, tenants=[tenant], subject="amal", seconds=600)
        return {"Authorization": f"Bearer {made}"}

    def ask(self, tenant: str, query: str, *, at: str, role: str = "viewer") -> httpx.Response:
        return httpx.post(f"{self.url}/{at}/graphql", json={"query": query}, headers=self.headers(tenant, role), timeout=60)


def declare(root: Path) -> None:
    """The tiny dataset and model, once for each tenant, under names of its own."""
    for tenant in (HOTELS, BANKS):
        for kind, name in (("datasets", DATASET), ("models", MODEL)):
            document = yaml.safe_load((DEFS / kind / name / "defs.yaml").read_text())
            document["attributes"]["name"] = f"{tenant}_{kind}"
            if kind == "models":
                document["attributes"] |= {"tenant": tenant, "dataset": f"{tenant}_datasets"}
            (root / kind / tenant).mkdir(parents=True)
            (root / kind / tenant / "defs.yaml").write_text(yaml.safe_dump(document))


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("tenants")
    declare(folder / "defs")
    tiny = TinyHome(folder / "home", defs=folder / "defs", web_port=free_port())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FALAJ_WEB_PORT", str(tiny.settings.web_port))
        try:
            found = tenants.prepare_tenants(tiny.settings)
            url = tenants.start_tenants(tiny.settings, found, whole=False)
            runs = {}
            for one, word in zip(found, (SECRET, "heron"), strict=True):
                with dg.DagsterInstance.from_config(str(one.home.instance)) as instance:
                    runs[one.tenant] = fill(instance, secret=word)
            yield Running(url, tiny.settings, runs[BANKS])
        finally:
            stopped = site.stop_all(tiny.settings)
            assert sorted(stopped) == ["gateway", "web of banks", "web of hotels"]


def test_each_tenant_has_its_own_code_location_and_home(running: Running) -> None:
    for mine, other in ((HOTELS, BANKS), (BANKS, HOTELS)):
        said = running.ask(mine, JOBS, at=mine).text
        assert f"{mine}_models__train" in said
        assert other not in said
        assert (running.settings.home.tenants / mine / "tenant").read_text() == mine


def test_the_owner_reads_all_of_it(running: Running) -> None:
    assert all(SECRET in running.ask(BANKS, query, at=BANKS).text for query in questions(running.run, SECRET))
    headers = running.headers(BANKS, "viewer")
    assert SECRET in httpx.get(f"{running.url}/banks/logs/{running.run}/compute_logs/step/out", headers=headers).text
    assert httpx.get(f"{running.url}/", headers=headers).headers["location"] == "/banks/"


def test_another_tenant_reads_none_of_it_by_any_query(running: Running) -> None:
    """Also not by logs whose key leads through the folders of the homes."""
    beside = ["..", "..", "..", BANKS, "instance", "storage", running.run, "compute_logs", "step"]
    paths = [f"{{ capturedLogs(logKey: {json.dumps(key)}) {{ stdout }} }}" for key in (beside, ["/".join(beside[:-1]), "step"])]
    for query in [*questions(running.run, SECRET), *paths]:
        text = running.ask(HOTELS, query, at=HOTELS, role="admin").text.replace(f'"{SECRET}"', "")
        assert f"job_{SECRET}" not in text
        assert f"says {SECRET}" not in text
        refused = running.ask(HOTELS, query, at=BANKS, role="admin")
        assert refused.status_code == 403
        assert SECRET not in refused.text


def test_another_tenant_reads_none_of_it_by_any_path_or_header(running: Running) -> None:
    host, headers = running.url.removeprefix("http://"), running.headers(HOTELS, "admin")
    forged = {"X-Forwarded-Prefix": "/banks", "X-Original-URL": "/banks/", "X-Falaj-User": "root", "X-Rewrite-URL": "/banks/"}
    for address in (prefix + door for prefix in spellings(HOTELS, BANKS) for door in doors(running.run)):
        connection = http.client.HTTPConnection(host, timeout=30)
        connection.request("GET", address, headers={**headers, **forged})
        reply = connection.getresponse()
        assert SECRET.encode() not in reply.read()
        assert not (reply.status == 200 and "download_debug" in address), address
        connection.close()


def test_another_tenant_hears_none_of_it(running: Running) -> None:
    address, headers = running.url.replace("http", "ws"), running.headers(HOTELS, "viewer")
    with pytest.raises(InvalidStatus) as refused:
        connect(f"{address}/banks/graphql", subprotocols=["graphql-ws"], additional_headers=headers, proxy=None)
    assert refused.value.response.status_code == 403
    told = "messages { ... on MessageEvent { message } }"
    query = f'subscription S {{ pipelineRunLogs(runId: "{running.run}", cursor: null) {{ ... on PipelineRunLogsSubscriptionSuccess {{ {told} }} }} }}'
    with connect(f"{address}/hotels/graphql", subprotocols=["graphql-ws"], additional_headers=headers, proxy=None) as socket:
        socket.send(json.dumps({"type": "start", "id": "1", "payload": {"query": query}}))
        assert SECRET not in socket.recv(timeout=20)


def test_started_again_it_is_the_same_and_before_other_servers_it_is_refused(running: Running) -> None:
    found = tenants.prepare_tenants(running.settings)
    assert tenants.start_tenants(running.settings, found, whole=False) == running.url
    with pytest.raises(StateError, match="has a gateway before other web servers; `falaj down` stops it"):
        tenants.start_tenants(running.settings, found[:1], whole=False)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"mtls": "/etc/falaj/service"}, "all tenants would show that one certificate; right would be local"),
        ({"tenant": "hotels"}, "is the home of tenant hotels; --tenants is for the home above it"),
    ],
)
def test_where_tenants_cannot_be_kept_apart_none_is_started(tmp_path: Path, changed: dict[str, str], said: str) -> None:
    with pytest.raises(StateError, match=said):
        tenants.prepare_tenants(replace(TinyHome(tmp_path / "home").settings, **changed))


def test_a_tenant_that_would_take_an_address_of_the_gateway_is_refused(tmp_path: Path) -> None:
    declare(tmp_path / "defs")
    file = tmp_path / "defs" / "models" / HOTELS / "defs.yaml"
    file.write_text(file.read_text().replace(f"tenant: {HOTELS}", "tenant: auth"))
    with pytest.raises(StateError, match="a tenant cannot be named 'auth', since the gateway has that address itself"):
        tenants.prepare_tenants(TinyHome(tmp_path / "home", defs=tmp_path / "defs").settings)
