"""The platform image as a tenant's pods run it: code location, daemon, a run's pod and a pod a step, read-only and without capabilities."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import dagster as dg
import httpx
import oidc_provider_mock
import pytest
from images.tenant_site import Site, open_site
from podman import Podman, open_way
from postgres_process import own_database

from platform_assets import keys
from platform_assets.components.step import latest_record
from platform_assets.specs.records import RolloutVerdict
from platform_assets.specs.team import StoreSpec
from resources.tokens import mint

MODEL = "tiny_cancellations"
JOB = f"{MODEL}__train"
AUDIENCE = "falaj-gateway"
OK, UNAUTHORIZED = 200, 401
QUESTION = """query ($run: ID!, $key: [String!]!) {
  workspaceOrError { ... on Workspace { locationEntries { loadStatus } } }
  runOrError(runId: $run) { ... on Run { jobName status } }
  assetsOrError { ... on AssetConnection { nodes { key { path } } } }
  capturedLogs(logKey: $key) { stderr }
}"""


@pytest.fixture(scope="module")
def images(podman: Podman, checkout: Path) -> Iterator[dict[str, str]]:
    with podman.built(checkout, "platform") as platform, podman.built(checkout, "inference") as inference:
        yield {"platform": platform, "inference": inference}


@pytest.fixture(scope="module")
def issuer() -> Iterator[str]:
    people = [oidc_provider_mock.User(sub="amal", claims={"roles": ["viewer"], "tenants": ["*"]})]
    with oidc_provider_mock.run_server_in_thread(user_claims=people) as server:
        yield f"http://localhost:{server.server_port}"


@pytest.fixture(scope="module")
def servers(postgres: str, redis_server: str, s3_server: StoreSpec, issuer: str) -> dict[str, Any]:
    return {"database": own_database(postgres), "redis": redis_server, "store": s3_server, "issuer": issuer}


@pytest.fixture(scope="module")
def site(
    images: dict[str, str], servers: dict[str, Any], podman: Podman, checkout: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    open_way(folder)
    with open_site(folder, podman, checkout, images=images, **servers) as found:
        yield found


@pytest.fixture(scope="module")
def run(site: Site) -> dg.DagsterRun:
    """A training, from the first container of the tenant on, through the queue."""
    assert site.complete("code", "servers") == 0, site.cluster.logs()  # the init container
    for workload, name in (("rollout", "rollout"), ("code", "code"), ("daemon", "daemon")):
        site.start(workload, name)
    site.wait("code", "code", "dagster", "api", "grpc-health-check", f"--port={site.ports['code']}")
    asked = site.ask("daemon", "daemon", "dagster", "job", "launch", f"--job={JOB}", "--workspace=/opt/falaj/cluster/workspace.yaml")
    assert asked.returncode == 0, asked.stderr
    return site.finish()


def test_a_model_is_trained_released_and_deployed_in_pods_of_it(site: Site, run: dg.DagsterRun) -> None:
    assert run.status == dg.DagsterRunStatus.SUCCESS, site.cluster.logs()
    with site.instance() as instance:
        ended = [stats for stats in instance.get_run_step_stats(run.run_id) if stats.status.value == "SUCCESS"]
    step_pods = site.ended_pods("step_worker")
    assert len(step_pods) == len(ended) > 10
    assert {pod["status"]["phase"] for pod in step_pods} == {"Succeeded"}  # each at its first try
    assert [file.name for file in site.cluster.folder.glob("dagster-*.log") if "Traceback" in file.read_text()] == []
    printed = site.cluster.volumes.claim("falaj-home") / "instance" / "storage" / run.run_id / "compute_logs"
    assert len(list(printed.glob("*.out"))) == len(step_pods)  # the web server's pod shows them


def test_a_person_of_the_issuer_sees_it_in_the_web_server_and_in_mlflow(site: Site, run: dg.DagsterRun, issuer: str) -> None:
    for name in ("web", "mlflow", "gateway"):
        site.start("web", name)
    with httpx.Client(base_url=f"http://127.0.0.1:{site.ports['web']}", timeout=300) as nobody:
        site.until(lambda: nobody.get("/healthz").status_code == OK)
        assert nobody.post("/graphql", json={"query": "{ version }"}).status_code == UNAUTHORIZED
        assert nobody.get("/mlflow/api/2.0/mlflow/registered-models/search").status_code == UNAUTHORIZED
        token = {"Authorization": f"Bearer {id_token(issuer)}"}
    with httpx.Client(base_url=f"http://127.0.0.1:{site.ports['web']}", headers=token, timeout=300) as person:
        site.until(lambda: person.get("/server_info").status_code == OK)
        site.until(lambda: person.get("/mlflow/").status_code == OK)
        asked = person.post(
            "/graphql",
            json={"query": QUESTION, "variables": {"run": run.run_id, "key": [run.run_id, "compute_logs", step_file(site, run)]}},
        ).json()["data"]
        registered = person.get("/mlflow/api/2.0/mlflow/registered-models/search").json()["registered_models"]
    assert [entry["loadStatus"] for entry in asked["workspaceOrError"]["locationEntries"]] == ["LOADED"]
    assert (asked["runOrError"]["jobName"], asked["runOrError"]["status"]) == (JOB, "SUCCESS")
    assert {"model", "dataset", "features"} <= {node["key"]["path"][0] for node in asked["assetsOrError"]["nodes"]}
    assert asked["capturedLogs"]["stderr"].strip()  # what a step's pod printed, from the home that both mount
    assert [one["name"] for one in registered] == [MODEL]


def test_a_replica_answers_with_the_release_that_is_live(site: Site, run: dg.DagsterRun) -> None:
    assert run.status == dg.DagsterRunStatus.SUCCESS
    with site.instance() as instance:
        verdict = latest_record(instance, keys.model_key(MODEL, "rollout_verdict"), RolloutVerdict)
    assert verdict is not None
    site.start("inference", "inference")
    home = site.cluster.volumes.claim("falaj-home")
    token = {"Authorization": f"Bearer {mint(home / 'keys', scopes=['predict'])}"}
    with httpx.Client(base_url=f"http://127.0.0.1:{site.ports['inference']}", headers=token, timeout=60) as caller:
        site.until(lambda: caller.get("/v2/health/ready").status_code == OK)
        told = caller.get(f"/v2/models/{MODEL}").json()
        rows = [
            {**one, "shape": [1, one["shape"][1]], "data": ["" if one["datatype"] == "BYTES" else 0.0] * one["shape"][1]}
            for one in told["inputs"]
        ]
        answered = caller.post(f"/v2/models/{MODEL}/infer", json={"inputs": rows})
    assert told["versions"] == [verdict.live_digest[:12]]
    assert (answered.status_code, answered.json().get("model_version")) == (OK, verdict.live_digest[:12]), answered.text
    assert (home / "serving-replicas" / "inference").stat().st_uid == 0  # as a kubelet makes it: its group is the pod's


def step_file(site: Site, run: dg.DagsterRun) -> str:
    """The name under which a step's output is kept."""
    with site.instance() as instance:
        kept = [
            entry.dagster_event.logs_captured_data for entry in instance.all_logs(run.run_id, of_type=dg.DagsterEventType.LOGS_CAPTURED)
        ]
    return next(one.file_key for one in kept if any(key.endswith("__trained") for key in one.step_keys or ()))


def id_token(issuer: str) -> str:
    """Return a token of the audience that programs have, got as a browser gets one."""
    asked = {
        "client_id": AUDIENCE, "redirect_uri": "http://localhost/cb", "response_type": "code", "scope": "openid", "state": "s",
    }  # fmt: skip
    back = httpx.post(f"{issuer}/oauth2/authorize", params=asked, data={"sub": "amal"})
    code = parse_qs(urlsplit(back.headers["location"]).query)["code"][0]
    form = {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": "http://localhost/cb",
        "client_id": AUDIENCE,
        "client_secret": "x",
    }
    return str(httpx.post(f"{issuer}/oauth2/token", data=form).json()["id_token"])
