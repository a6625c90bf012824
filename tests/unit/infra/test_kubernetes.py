"""The manifests as a cluster would get them: valid, within the rules, and true to the code that they start."""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import jsonschema
import kubernetes_validate
import pytest
import yaml

from platform_assets.identity.services import INFERENCE, MONITORING, PLATFORM, uri_of
from platform_assets.stages.cluster.rules import judge
from platform_assets.stages.cluster.workloads import Workload, workloads
from platform_assets.stages.serving import __main__ as serving
from platform_assets.stages.serving import pages
from platform_assets.stages.serving.tls import TlsFiles
from resources.parts import database_of
from resources.settings import Home, Settings, read_settings
from resources.variables import VARIABLES

OVERLAYS = ("onprem", "cloud", "hybrid", "edge")
VERSIONS = ("1.32", kubernetes_validate.latest_version())
# Their projects publish no schema that is at hand: rendered and judged, not validated.
WITHOUT_SCHEMA = {
    "Bundle", "Certificate", "ClusterQueue", "ExternalSecret", "Issuer", "LocalQueue", "ResourceFlavor", "SecretStore", "ServiceMonitor",
    "VerticalPodAutoscaler", "WorkloadPriorityClass",
}  # fmt: skip
PUBLISHED = {"InferenceService", "ScaledObject", "TrainJob", "TrainingRuntime"}
FOREIGN = {  # variables that a library reads, and which
    "DAGSTER_HOME": "dagster", "DAGSTER_CURRENT_IMAGE": "dagster", "DAGSTER_POSTGRES_URL": "infra/dagster/cluster.yaml",
    "POD_NAMESPACE": "infra/dagster/cluster.yaml", "POD_NAME": "the pod itself", "SSL_CERT_FILE": "OpenSSL", "HOME": "every program",
    "MLFLOW_DISABLE_TELEMETRY": "mlflow", "PGPASSWORD": "libpq", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "torch",
}  # fmt: skip


@pytest.fixture(scope="session")
def rendered(checkout: Path) -> dict[str, list[dict[str, Any]]]:
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not on this machine: nothing renders the manifests")
    root = checkout / "infra" / "kubernetes" / "overlays"

    def render(name: str) -> list[dict[str, Any]]:
        made = subprocess.run(["kubectl", "kustomize", root / name], capture_output=True, text=True, check=True)
        assert not made.stderr, made.stderr  # what is deprecated is said there
        return list(yaml.load_all(made.stdout, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))

    return {name: render(name) for name in OVERLAYS}


@pytest.fixture(scope="session")
def everything(rendered: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Each manifest once."""
    return list({json.dumps(one, sort_keys=True): one for all_of in rendered.values() for one in all_of}.values())


@pytest.fixture(scope="session")
def containers(everything: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """By name; those of several tenants and overlays are the same, but for what an overlay changes."""
    return {str(found["name"]): found for work in workloads(everything) for _, found in work.containers()}


def test_every_manifest_is_valid_strictly_for_the_oldest_and_the_newest_version(everything: list[dict[str, Any]], monkeypatch) -> None:
    read = functools.cache(kubernetes_validate.utils.schema_contents)  # it would read two megabytes of definitions for each manifest
    monkeypatch.setattr(kubernetes_validate.utils, "schema_contents", read)
    foreign = set()
    for manifest in everything:
        for version in VERSIONS:
            try:
                kubernetes_validate.validate(manifest, version, strict=True)
            except kubernetes_validate.SchemaNotFoundError:
                foreign.add(manifest["kind"])
    assert foreign == WITHOUT_SCHEMA | PUBLISHED


def _closed(schema: Any) -> Any:
    """A published OpenAPI v3 schema as JSON Schema that refuses unknown fields, as the API server does."""
    if isinstance(schema, list):
        return [_closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: _closed(value) for key, value in schema.items() if not key.startswith("x-kubernetes")}
    if schema.get("x-kubernetes-int-or-string"):
        made.pop("type", None)
        made["anyOf"] = [{"type": "integer"}, {"type": "string"}]
    if isinstance(schema.get("properties"), dict) and not schema.get("x-kubernetes-preserve-unknown-fields"):
        made.setdefault("additionalProperties", False)
    if schema.get("nullable") and isinstance(made.get("type"), str):
        made["type"] = [made["type"], "null"]
    return made


@pytest.fixture(scope="session")
def custom(checkout: Path) -> dict[str, Any]:
    """Schemas of custom resources by kind."""
    chosen, beside = os.environ.get("FALAJ_SCHEMAS"), checkout.parent / "shared" / "schemas"
    folder = Path(chosen) if chosen else beside
    if not folder.is_dir():
        pytest.skip("the schemas of custom resources are not at hand: set FALAJ_SCHEMAS to a folder of them")
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    definitions = [one for file in folder.glob("*.yaml") for one in yaml.load_all(file.read_text(), Loader=loader) if one]
    versions = {one["spec"]["names"]["kind"]: one["spec"]["versions"] for one in definitions}
    return {kind: _closed(found[-1]["schema"]["openAPIV3Schema"]) for kind, found in versions.items()}


def _complete(manifest: dict[str, Any], custom: dict[str, Any]) -> str | None:
    schema = custom[manifest["kind"]]
    found = {**manifest, "metadata": {}}  # the API server checks metadata itself
    error = jsonschema.exceptions.best_match(jsonschema.Draft7Validator(schema).iter_errors(found))
    return error and f"{manifest['kind']}: {error.json_path}: {error.message[:200]}"


def test_custom_resources_are_what_their_projects_published(everything: list[dict[str, Any]], custom: dict[str, Any]) -> None:
    found = [one for one in everything if one["kind"] in PUBLISHED]
    assert {one["kind"] for one in found} == PUBLISHED
    assert [fault for one in found if (fault := _complete(one, custom))] == []
    misspelt = json.loads(json.dumps(next(one for one in found if one["kind"] == "ScaledObject")).replace("maxReplicaCount", "maxReplicas"))
    assert "maxReplicas" in (_complete(misspelt, custom) or "")


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_no_overlay_breaks_a_rule(rendered: dict[str, list[dict[str, Any]]], overlay: str) -> None:
    assert [str(fault) for fault in judge(rendered[overlay])] == []


def test_a_sensitive_tenant_is_on_the_premises_alone_and_the_other_is_not_bound_to_them(
    rendered: dict[str, list[dict[str, Any]]],
) -> None:
    found = {work.where: work for work in workloads(rendered["hybrid"])}
    site = {where: (work.pod.get("nodeSelector") or {}).get("falaj.ae/site") for where, work in found.items()}
    assert {site[where] for where in site if "falaj-clinic" in where} == {"onprem"}
    assert {site[where] for where in site if "falaj-hospitality" in where} == {None}


def test_the_sensitive_tenants_instance_differs_by_one_line(checkout: Path) -> None:
    common = yaml.safe_load((checkout / "infra" / "dagster" / "cluster.yaml").read_text())
    theirs = yaml.safe_load((checkout / "infra" / "kubernetes" / "components" / "sensitive" / "cluster.yaml").read_text())
    pod = common["run_launcher"]["config"]["run_k8s_config"]["pod_spec_config"]
    assert "node_selector" not in pod
    pod["node_selector"] = {"falaj.ae/site": "onprem"}
    assert theirs == common


def test_the_values_for_dagsters_chart_make_the_same_instance_and_the_same_pods(
    checkout: Path, containers: dict[str, dict[str, Any]]
) -> None:
    values = yaml.safe_load((checkout / "infra" / "kubernetes" / "dagster-chart-values.yaml").read_text())
    ours = yaml.safe_load((checkout / "infra" / "dagster" / "cluster.yaml").read_text())
    launcher = values["runLauncher"]["config"]["customRunLauncher"]
    assert launcher["config"].pop("instance_config_map") == f"{values['fullnameOverride']}-instance"
    ours["run_launcher"]["config"].pop("instance_config_map")
    for one in (launcher, ours["run_launcher"]):
        one["config"]["volumes"] = sorted(one["config"]["volumes"], key=str)
        one["config"]["volume_mounts"] = sorted(one["config"]["volume_mounts"], key=str)
    assert launcher == ours["run_launcher"]
    assert values["computeLogManager"]["config"]["customComputeLogManager"] == {**ours["compute_logs"], "config": {}}
    daemon = values["dagsterDaemon"]
    assert daemon["runCoordinator"]["config"]["customRunCoordinator"] == ours["run_coordinator"]
    assert {_snake(name): value for name, value in daemon["runMonitoring"].items()} == ours["run_monitoring"]
    assert {_snake(name): value for name, value in daemon["runRetries"].items()} == ours["run_retries"]
    assert values["retention"]["sensor"]["purgeAfterDays"] == ours["retention"]["sensor"]["purge_after_days"]
    assert values["additionalInstanceConfig"] == {"nux": ours["nux"], "concurrency": ours["concurrency"]}
    (code,) = values["dagster-user-deployments"]["deployments"]
    for made, base in ((code, containers["code"]), (daemon, containers["daemon"])):
        assert made["resources"] == base["resources"]
        assert made["securityContext"] == base["securityContext"]
        assert f"{made['image']['repository']}:{made['image']['tag']}" == base["image"]
        there = {mount["mountPath"] for mount in base["volumeMounts"]}
        assert {mount["mountPath"] for mount in made["volumeMounts"]} <= there
    assert set(code["dagsterApiGrpcArgs"]) <= set(containers["code"]["args"])
    assert values["dagsterWebserver"]["replicaCount"] == 0  # ours stands behind the gateway
    place = values["postgresql"]
    team = tomllib.loads((checkout / "infra" / "kubernetes" / "tenants" / "hospitality" / "deployment" / "team.toml").read_text())
    told = f"postgresql://{place['postgresqlUsername']}@{place['postgresqlHost']}:{place['service']['port']}/{place['postgresqlDatabase']}"
    assert told == team["postgresql"]["url"]


def _snake(name: str) -> str:
    return re.sub(r"(?=[A-Z])", "_", name).lower()


def test_where_keda_scales_no_autoscaler_of_ours_does(rendered: dict[str, list[dict[str, Any]]]) -> None:
    kinds = {name: [one["kind"] for one in found] for name, found in rendered.items()}
    assert ("ScaledObject" in kinds["cloud"], "HorizontalPodAutoscaler" in kinds["cloud"]) == (True, False)
    assert ("ScaledObject" in kinds["onprem"], "HorizontalPodAutoscaler" in kinds["onprem"]) == (False, True)


def test_every_name_that_a_manifest_refers_to_is_there(rendered: dict[str, list[dict[str, Any]]]) -> None:
    """ConfigMaps, Secrets, claims, accounts and priority classes: a pod that names another waits for ever."""
    for overlay, manifests in rendered.items():
        there = {(one["kind"], one["metadata"]["name"]) for one in manifests} | {("ConfigMap", "falaj-trust")}
        there |= {("Secret", one["spec"]["target"]["name"]) for one in manifests if one["kind"] == "ExternalSecret"}
        certificates = {one["spec"]["secretName"] for one in manifests if one["kind"] == "Certificate"}
        there |= {("Secret", name) for name in certificates or ("inference-tls",)}  # at the edge it is made by hand
        assert (overlay == "edge") == (not certificates)
        for work in workloads(manifests):
            missing = set(_names(work)) - there
            assert not missing, (overlay, work.where, missing)


def _names(work: Workload) -> Iterator[tuple[str, str]]:
    yield "ServiceAccount", work.pod["serviceAccountName"]
    if "priorityClassName" in work.pod:
        yield "PriorityClass", work.pod["priorityClassName"]
    mounts = {mount["name"] for _, container in work.containers() for mount in container.get("volumeMounts", ())}
    volumes = {one["name"]: one for one in work.pod.get("volumes", ())}
    assert mounts - {"data"} == set(volumes), work.where  # redis makes its own claim, called data
    for volume in volumes.values():
        if "configMap" in volume:
            yield "ConfigMap", volume["configMap"]["name"]
        if "secret" in volume:
            yield "Secret", volume["secret"]["secretName"]
        if "persistentVolumeClaim" in volume:
            yield "PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"]
    for _, container in work.containers():
        for source in container.get("envFrom", ()):
            yield ("ConfigMap", source["configMapRef"]["name"]) if "configMapRef" in source else ("Secret", source["secretRef"]["name"])


def test_run_pods_are_made_of_the_image_and_the_names_that_are_there(rendered: dict[str, list[dict[str, Any]]], checkout: Path) -> None:
    launcher = yaml.safe_load((checkout / "infra" / "dagster" / "cluster.yaml").read_text())["run_launcher"]["config"]
    there = {(one["kind"], one["metadata"]["name"]) for one in rendered["onprem"]} | {
        ("ConfigMap", "falaj-trust"),
        ("Secret", "falaj-secrets"),
    }
    wanted = {("ServiceAccount", launcher["service_account_name"]), ("ConfigMap", launcher["instance_config_map"])}
    wanted |= {("ConfigMap", name) for name in launcher["env_config_maps"]} | {("Secret", name) for name in launcher["env_secrets"]}
    wanted |= {
        ("PersistentVolumeClaim", v["persistentVolumeClaim"]["claimName"]) for v in launcher["volumes"] if "persistentVolumeClaim" in v
    }
    assert wanted <= there
    for overlay in ("onprem", "cloud", "hybrid"):
        for work in workloads(rendered[overlay]):
            for _, container in work.containers():
                told = {one["name"]: one.get("value") for one in container.get("env", ())}
                assert told.get("DAGSTER_CURRENT_IMAGE", container["image"]) == container["image"]


# What the manifests say of the code is what the code says of itself.


def test_every_variable_is_one_that_somebody_reads(
    containers: dict[str, dict[str, Any]], everything: list[dict[str, Any]], checkout: Path
) -> None:
    told = {one["name"] for container in containers.values() for one in container.get("env", ())}
    for one in everything:
        if one["kind"] == "ConfigMap" and one["metadata"]["name"] == "falaj-environment":
            told |= set(one["data"])
        if one["kind"] == "ExternalSecret" and one["spec"]["target"]["name"] == "falaj-secrets":
            told |= {entry["secretKey"] for entry in one["spec"]["data"]}
    assert told - set(VARIABLES) - set(FOREIGN) == set()
    asked = set(re.findall(r"\{env: (\w+)\}", (checkout / "infra" / "dagster" / "cluster.yaml").read_text()))
    assert asked == {"DAGSTER_POSTGRES_URL", "POD_NAMESPACE"}
    assert asked <= told


@pytest.fixture
def tenants(rendered: dict[str, list[dict[str, Any]]]) -> dict[str, dict[str, dict[str, str]]]:
    """What each tenant's ConfigMaps hold, by namespace and name."""
    found: dict[str, dict[str, dict[str, str]]] = {}
    for one in rendered["hybrid"]:
        if one["kind"] == "ConfigMap":
            found.setdefault(one["metadata"]["namespace"], {})[one["metadata"]["name"]] = one["data"]
    return found


def _as_a_process(held: dict[str, dict[str, str]], folder: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Read the settings as a process of the tenant does, the mounted files under `folder`."""
    for name, value in held["falaj-environment"].items():
        monkeypatch.setenv(name, value)
    text = held["falaj-team"]["team.toml"].replace("/etc/falaj", str(folder))
    for file in re.findall(rf'"({folder}[^"]*)"', text):
        Path(file).parent.mkdir(parents=True, exist_ok=True)
        Path(file).write_text("x")
    (folder / "team.toml").write_text(text)
    monkeypatch.setenv("FALAJ_TEAM", str(folder / "team.toml"))
    return read_settings()


def test_the_settings_accept_what_the_manifests_set(
    tenants: dict[str, dict[str, dict[str, str]]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for held in tenants.values():
        settings = _as_a_process(held, tmp_path, monkeypatch)
        assert (settings.steps, settings.serve_url, str(settings.home.root)) == ("pods", "https://rollout:8151", "/var/lib/falaj")
        assert str(settings.home.serving) == "/var/lib/falaj/serving"
        assert held["falaj-environment"]["FALAJ_TEAM"] == "/etc/falaj/team/team.toml"


def test_dagster_is_told_the_database_that_the_team_file_names(
    tenants: dict[str, dict[str, dict[str, str]]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = set()
    for held in tenants.values():
        settings, told = _as_a_process(held, tmp_path, monkeypatch), held["falaj-environment"]
        name, wanted = "DAGSTER_POSTGRES_URL", database_of(settings, "dagster")
        assert wanted is not None
        assert told[name] == wanted.replace(quote(str(tmp_path), safe=""), quote("/etc/falaj", safe=""))
        assert "sslmode=verify-full" in told[name]
        seen.add(told[name])
    assert len(seen) == len(tenants) == 2  # a database a tenant


def test_who_reads_the_team_file_has_it_and_what_it_names(rendered: dict[str, list[dict[str, Any]]], checkout: Path) -> None:
    mounted = {"/etc/falaj/team": "falaj-team", "/etc/falaj/servers": "falaj-servers", "/etc/falaj/trust": "falaj-trust"}
    readers = set()
    for overlay in ("onprem", "cloud", "hybrid"):
        for work in workloads(rendered[overlay]):
            volumes = {one["name"]: one for one in work.pod.get("volumes", ())}
            for path, container in work.containers():
                sources = [one["configMapRef"]["name"] for one in container.get("envFrom", ()) if "configMapRef" in one]
                if "falaj-environment" in sources or "--team=/etc/falaj/team/team.toml" in container.get("args", ()):
                    readers.add(path)
                    found = {one["mountPath"]: volumes[one["name"]] for one in container["volumeMounts"]}
                    assert {at: _made_of(found[at]) for at in mounted} == mounted, (work.where, path)
    dagster = {
        "containers.code",
        "initContainers.servers",
        "containers.daemon",
        "containers.web",
        "containers.mlflow",
        "containers.gateway",
    }
    assert readers == dagster | {"containers.rollout", "containers.inference", "containers.kserve-container"}
    launcher = yaml.safe_load((checkout / "infra" / "dagster" / "cluster.yaml").read_text())["run_launcher"]["config"]
    volumes = {one["name"]: one for one in launcher["volumes"]}
    found = {one["mountPath"]: volumes[one["name"]] for one in launcher["volume_mounts"]}
    assert {at: _made_of(found[at]) for at in mounted} == mounted


def _made_of(volume: dict[str, Any]) -> str:
    return str(volume["configMap"]["name"] if "configMap" in volume else volume["secret"]["secretName"])


def test_the_mounted_secret_holds_the_files_that_a_team_file_names(
    everything: list[dict[str, Any]], tenants: dict[str, dict[str, dict[str, str]]]
) -> None:
    (template,) = {json.dumps(one["spec"]["target"]["template"]) for one in everything if one["metadata"]["name"] == "falaj-servers"}
    made = set(json.loads(template)["data"])
    for held in tenants.values():
        assert set(re.findall(r'"/etc/falaj/servers/([^"]+)"', held["falaj-team"]["team.toml"])) == made


def test_replicas_follow_the_rollout_and_their_logs_lie_where_they_are_gathered(containers: dict[str, dict[str, Any]]) -> None:
    home = Home(Path("/var/lib/falaj"))
    for name in ("inference", "kserve-container"):
        assert f"--follow={home.serving / 'state.json'}" in containers[name]["args"]
        (mount,) = [one for one in containers[name]["volumeMounts"] if one["mountPath"] == "/var/lib/serving"]
        assert Path("/var/lib/falaj") / Path(mount["subPathExpr"]).parent == home.replicas
        assert "--close-log-seconds=60" in containers[name]["args"]
    assert f"--serving={home.serving}" in containers["rollout"]["args"]


@pytest.mark.parametrize("name", ["inference", "rollout", "kserve-container"])
def test_the_inference_server_takes_its_arguments_and_answers_where_it_is_probed(
    containers: dict[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    container, started, read = containers[name], [], []
    monkeypatch.setattr(serving, "run_server", started.append)
    monkeypatch.setattr(serving, "read_places", read.append)
    assert container["command"] == ["python", "-m", serving.__name__.removesuffix(".__main__")]
    assert serving.main(container["args"]) == 0
    (config,) = started
    assert config.port == container["ports"][0]["containerPort"]
    assert (config.host, str(config.keys)) == ("0.0.0.0", "/var/lib/falaj/keys")
    assert (config.memory_bytes or 0) * config.workers <= _bytes(container["resources"]["limits"]["memory"])
    probes = [container[probe]["httpGet"] for probe in ("readinessProbe", "livenessProbe")]
    assert [probe["path"] for probe in probes] == ["/v2/health/ready", "/v2/health/live"]
    assert all((probe.get("scheme") == "HTTPS") == (config.tls is not None) for probe in probes)
    mounted = [mount["mountPath"] for mount in container["volumeMounts"]]
    assert all(any(str(path).startswith(at) for at in mounted) for path in (config.serving, config.keys, *_files(config.tls)))


def _files(tls: TlsFiles | None) -> list[Path]:
    return [] if tls is None else [file for file in (tls.certificate, tls.key, tls.services) if file is not None]


def test_who_asks_the_inference_server_shows_a_certificate_that_it_takes(rendered: dict[str, list[dict[str, Any]]], checkout: Path) -> None:
    launcher = yaml.safe_load((checkout / "infra" / "dagster" / "cluster.yaml").read_text())["run_launcher"]["config"]
    for namespace in ("falaj-clinic", "falaj-hospitality"):
        found = [one for one in rendered["hybrid"] if one["metadata"].get("namespace") == namespace]
        told = next(one["data"] for one in found if one["metadata"]["name"] == "falaj-environment")
        made = {one["spec"]["secretName"]: one["spec"] for one in found if one["kind"] == "Certificate"}
        issuers = {one["metadata"]["name"]: one["spec"] for one in found if one["kind"] == "Issuer"}
        names = {PLATFORM: "platform-service", MONITORING: "monitoring-service", INFERENCE: "rollout-service"}
        for name, secret in names.items():
            assert made[secret]["uris"] == [uri_of(name)]
            assert made[secret]["usages"][1] == ("server auth" if name == INFERENCE else "client auth")
            assert issuers[made[secret]["issuerRef"]["name"]]["ca"]["secretName"] == "services-ca"  # the tenant's own
        assert made["services-ca"]["isCA"]
        server = urlsplit(told["FALAJ_SERVE_URL"])
        assert (server.scheme, made["rollout-service"]["dnsNames"]) == ("https", [server.hostname])
        pods = {work.where.rpartition("/")[2]: (work.pod, dict(work.containers())) for work in workloads(found)}
        shown = {}
        for where, (pod, containers) in pods.items():
            for path, container in containers.items():
                at = {mount["mountPath"]: mount["name"] for mount in container.get("volumeMounts", ())}
                if told["FALAJ_MTLS"] in at:
                    volumes = {one["name"]: one for one in pod["volumes"]}
                    shown[where, path.rpartition(".")[2]] = _made_of(volumes[at[told["FALAJ_MTLS"]]])
        assert {name: secret for (_, name), secret in shown.items()} == {"code": "platform-service", "rollout": "rollout-service"}
        # Nobody holds the authority's key: of its Secret the certificate alone is mounted.
        ((replica, replicas),) = [found for found in pods.values() if "containers.inference" in found[1]]
        assert "--service-ca=/etc/falaj/services/ca.crt" in replicas["containers.inference"]["args"]
        assert {"name": "services", "mountPath": "/etc/falaj/services", "readOnly": True} in replicas["containers.inference"][
            "volumeMounts"
        ]
        (volume,) = [one["secret"] for one in replica["volumes"] if one.get("secret", {}).get("secretName") == "services-ca"]
        assert volume["items"] == [{"key": "ca.crt", "path": "ca.crt"}]
        scraped = [one["spec"]["endpoints"][0]["tlsConfig"] for one in found if one["kind"] == "ServiceMonitor"]
        assert {(one["serverName"], one["ca"]["secret"]["name"]) for one in scraped} == {
            ("inference", "inference-tls"),
            ("rollout", "monitoring-service"),
        }
        assert {(one["cert"]["secret"]["name"], one["keySecret"]["name"]) for one in scraped} == {
            ("monitoring-service", "monitoring-service")
        }
    volumes = {one["name"]: one for one in launcher["volumes"]}
    mounts = {one["mountPath"]: one["name"] for one in launcher["volume_mounts"]}
    assert _made_of(volumes[mounts[told["FALAJ_MTLS"]]]) == "platform-service"


def _bytes(memory: str) -> int:
    return int(memory[:-2]) << {"Mi": 20, "Gi": 30}[memory[-2:]]


def test_the_probed_routes_and_the_scraped_counter_are_the_servers_own(everything: list[dict[str, Any]], checkout: Path) -> None:
    source = (checkout / "platform_assets" / "stages" / "serving" / "app.py").read_text()
    assert '"/v2/health/live", "/v2/health/ready"' in source
    assert '"/metrics": "metrics"' in source
    (scaled,) = [one for one in everything if one["kind"] == "ScaledObject"]
    asked = " ".join(one["metadata"]["query"] for one in scaled["spec"]["triggers"])
    (counter,) = re.findall(r"\bfalaj_\w+", asked)
    assert f"# TYPE {counter} counter" in Path(pages.__file__).read_text()


def test_dagster_takes_its_commands(containers: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    from dagster._cli.api import grpc_command, grpc_health_check_command
    from dagster._daemon.cli import run_command

    code, daemon = containers["code"], containers["daemon"]
    assert code["command"] == ["dagster", "api", "grpc"]
    given = grpc_command.make_context("grpc", list(code["args"]))
    assert (given.params["port"], given.params["module_name"]) == (4000, "platform_assets.definitions")
    grpc_health_check_command.make_context("grpc-health-check", code["startupProbe"]["exec"]["command"][3:])
    assert daemon["command"] == ["dagster-daemon", "run"]
    workspace = tmp_path / "workspace.yaml"
    workspace.write_text("")  # the option wants a file that is there
    run_command.make_context("run", [one.replace("/opt/falaj/cluster/workspace.yaml", str(workspace)) for one in daemon["args"]])
    assert code["readinessProbe"]["grpc"]["service"] == "DagsterApi"
    server = importlib.util.find_spec("dagster._grpc.server")
    assert server is not None
    assert server.origin is not None
    assert 'set("DagsterApi"' in Path(server.origin).read_text()


def test_one_location_has_one_name_everywhere(checkout: Path, containers: dict[str, dict[str, Any]]) -> None:
    told = yaml.safe_load((checkout / "infra" / "kubernetes" / "base" / "workspace.yaml").read_text())
    (server,) = [one["grpc_server"] for one in told["load_from"]]
    (local,) = [one["python_module"] for one in yaml.safe_load((checkout / "workspace.yaml").read_text())["load_from"]]
    assert server["location_name"] == local["location_name"]
    assert f"--location-name={server['location_name']}" in containers["code"]["args"]
    assert f"--module-name={local['module_name']}" in containers["code"]["args"]
    assert (server["host"], server["port"]) == ("code", containers["code"]["ports"][0]["containerPort"])


def test_the_gateway_is_reached_through_the_proxy_alone(containers: dict[str, dict[str, Any]], checkout: Path) -> None:
    from platform_assets.gateway.__main__ import _read_site

    web, mlflow, gateway = containers["web"], containers["mlflow"], containers["gateway"]
    modules = [one["command"][2] for one in (web, mlflow, gateway)]
    assert modules == ["resources.dagster_instance.web", "resources.mlflow_server", "platform_assets.gateway"]
    sites = [_read_site(one) for one in gateway["args"]]
    assert [(str(site.socket), site.prefix, site.kind) for site in sites] == [
        (web["args"][0], "", "dagster"), (*mlflow["args"], "mlflow"),
    ]  # fmt: skip
    config = (checkout / "infra" / "kubernetes" / "base" / "nginx.conf").read_text()
    assert f"http://127.0.0.1:{VARIABLES['FALAJ_WEB_PORT'].default};" in config
    assert f"listen {containers['proxy']['ports'][0]['containerPort']} ssl;" in config


def test_the_trainer_takes_its_arguments_under_torchrun(everything: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]) -> None:
    from torch.distributed.run import get_args_parser

    from platform_assets.stages.training.__main__ import main

    job = next(one for one in everything if one["kind"] == "TrainJob")
    trainer = job["spec"]["trainer"]
    given = get_args_parser().parse_args([*trainer["command"][1:], *trainer["args"]])
    assert given.module
    assert given.training_script == "platform_assets.stages.training" or given.training_script_args[0] == "platform_assets.stages.training"
    with pytest.raises(SystemExit):
        main(["--help"])
    known = capsys.readouterr().out
    assert all(f"{one.partition('=')[0]} " in known for one in trainer["args"])
