"""A tenant's Dagster in containers of the platform image, as the overlay `onprem` has it, on servers of this machine without TLS."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import dagster as dg
import httpx
import yaml
from admission import refusal
from images.pods import Object, PodmanCluster
from podman import Podman

from platform_assets.specs.team import StoreSpec

NAMESPACE, DEFS = "falaj-hospitality", "/opt/falaj/tree/tests/pipeline/defs"
PATIENCE_SECONDS = 1500


class Site:
    """What the overlay has of a tenant, and what runs of it here."""

    def __init__(self, cluster: PodmanCluster, manifests: list[Object], podman: Podman, *, database: str, ports: Mapping[str, int]) -> None:
        self.cluster, self.database, self.ports, self._podman = cluster, database, ports, podman
        self._workloads = {one["metadata"]["name"]: one for one in manifests if one["kind"] in ("Deployment", "StatefulSet")}
        self._started: list[Any] = []

    def container(self, workload: str, name: str) -> tuple[Object, Object]:
        """The pod's specification, and one of its containers."""
        spec = self._workloads[workload]["spec"]["template"]["spec"]
        (found,) = [one for one in (*spec.get("initContainers", ()), *spec["containers"]) if one["name"] == name]
        arguments = [one for one in found.get("args", ()) if not one.startswith(("--tls-", "--service-ca="))]
        ours = f"--port={self.ports.get(workload, 0)}"  # the machine's network is everybody's
        return spec, {**found, "args": [ours if one.startswith("--port=") else one for one in arguments]}

    def _container(self, workload: str, name: str) -> Any:
        spec, container = self.container(workload, name)
        process = self.cluster.run(spec, container, f"falaj-test-{workload}-{name}", pod=workload, namespace=NAMESPACE)
        process.start()
        return process

    def complete(self, workload: str, name: str) -> int:
        """Run an init container to its end; its exit status."""
        process = self._container(workload, name)
        process.join()
        return int(process.exitcode)

    def start(self, workload: str, name: str) -> None:
        self._started.append(self._container(workload, name))

    def ask(self, workload: str, name: str, *command: str) -> subprocess.CompletedProcess[str]:
        return self._podman.ask("podman", "exec", f"falaj-test-{workload}-{name}", *command)

    def wait(self, workload: str, name: str, *probe: str) -> None:
        self.until(lambda: not self.ask(workload, name, *probe).returncode)

    def until(self, holds: Callable[[], bool]) -> None:
        """Wait until this holds, as long as all that was started lives; a server that does not answer yet is asked again."""
        until = time.monotonic() + PATIENCE_SECONDS
        while True:
            with suppress(httpx.TransportError):
                if holds():
                    return
            assert all(process.exitcode is None for process in self._started), self.cluster.logs()
            assert time.monotonic() < until, self.cluster.logs()
            time.sleep(1)

    @contextmanager
    def instance(self) -> Iterator[dg.DagsterInstance]:
        """The run storage as somebody sees it who has nothing else."""
        folder = self.cluster.folder / "looking"
        folder.mkdir(exist_ok=True)
        (folder / "dagster.yaml").write_text(yaml.safe_dump({"storage": {"postgres": {"postgres_url": self.database}}}))
        with dg.DagsterInstance.from_config(str(folder)) as found:
            yield found

    def finish(self) -> dg.DagsterRun:
        """Wait for the one run's end."""
        until = time.monotonic() + PATIENCE_SECONDS
        with self.instance() as instance:
            while not ((runs := instance.get_runs()) and runs[0].is_finished):
                assert time.monotonic() < until, self.cluster.logs()
                time.sleep(1)
            return runs[0]

    def ended_pods(self, component: str) -> list[Object]:
        """The pods of the run, or of its steps; the last ends a moment after its step."""
        until = time.monotonic() + PATIENCE_SECONDS
        while True:
            found = [pod for pod in self.cluster.of_kind("pods") if pod["metadata"]["labels"]["app.kubernetes.io/component"] == component]
            if all(pod["status"]["phase"] != "Running" for pod in found):
                return found
            assert time.monotonic() < until, self.cluster.logs()
            time.sleep(0.2)

    def close(self) -> None:
        for process in reversed(self._started):
            process.kill()
            process.join()
        self.cluster.close()


@contextmanager
def open_site(
    folder: Path, podman: Podman, checkout: Path, *, images: Mapping[str, str], database: str, redis: str, store: StoreSpec, issuer: str
) -> Iterator[Site]:
    """Lay out what the pods mount; nothing runs yet, and what runs in the end is ended. `issuer`: an OIDC issuer's address."""
    overlay = checkout / "infra" / "kubernetes" / "overlays" / "onprem"
    made = subprocess.run(["kubectl", "kustomize", overlay], capture_output=True, text=True, check=True)
    manifests = list(yaml.safe_load_all(made.stdout))
    named = {f"registry.example/falaj/{kind}:0.1.0": name for kind, name in images.items()}
    cluster = PodmanCluster(folder, podman, images=named)
    policies = [one for one in manifests if one["kind"] == "ValidatingAdmissionPolicy"]
    user = f"system:serviceaccount:{NAMESPACE}:falaj-run"
    cluster.refuses = lambda job: next((why for policy in policies if (why := refusal(policy, job, user=user))), None)
    ports = {workload: _free_port() for workload in ("code", "rollout", "inference", "web")}
    plain = urlsplit(database)
    cluster.hold(
        _mounted(
            manifests, database=f"postgresql://{plain.username}@{plain.hostname}:{plain.port}{plain.path}", redis=redis, store=store,
            issuer=issuer, api=cluster.url, ports=ports,
        )
    )  # fmt: skip
    found = Site(cluster, manifests, podman, database=f"{database}?options=-csearch_path%3Ddagster", ports=ports)
    try:
        yield found
    finally:
        found.close()


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _mounted(
    manifests: list[Object], *, database: str, redis: str, store: StoreSpec, issuer: str, api: str, ports: Mapping[str, int]
) -> dict[str, dict[str, str]]:
    """Return the ConfigMaps and Secrets of the tenant, but for where servers stand; no certificates."""
    data: dict[str, dict[str, str]] = {one["metadata"]["name"]: dict(one["data"]) for one in manifests if one["kind"] == "ConfigMap"}
    told = {
        "postgresql": {"url": database},
        "redis": {"url": redis},
        "store": {"url": store.url, "endpoint": store.endpoint, "credentials": "/etc/falaj/servers/s3"},
    }
    data["falaj-team"]["team.toml"] = "\n".join(
        f"[{table}]\njurisdiction = 'AE'\n" + "".join(f"{key} = '{value}'\n" for key, value in keys.items()) for table, keys in told.items()
    )
    data["falaj-environment"].update(
        DAGSTER_POSTGRES_URL=f"{database}?options=-csearch_path%3Ddagster", FALAJ_DEFS=DEFS, FALAJ_MTLS="off",
        FALAJ_SERVE_URL=f"http://127.0.0.1:{ports['rollout']}", FALAJ_WEB_PORT=str(ports["web"]), FALAJ_OIDC_ISSUER=issuer, SSL_CERT_FILE="/etc/ssl/certs/ca-certificates.crt",
    )  # fmt: skip
    (workspace,) = [name for name in data if name.startswith("falaj-workspace")]
    text = data[workspace]["workspace.yaml"]
    data[workspace]["workspace.yaml"] = text.replace("host: code", "host: 127.0.0.1").replace("4000", str(ports["code"]))
    kubeconfig = {
        "apiVersion": "v1", "kind": "Config", "current-context": "x", "users": [{"name": "x", "user": {}}],
        "clusters": [{"name": "x", "cluster": {"server": api}}], "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
    }  # fmt: skip
    instance = yaml.safe_load(data["falaj-dagster-instance"]["dagster.yaml"])
    instance["run_launcher"]["config"].update(load_incluster_config=False, kubeconfig_file="/etc/falaj/trust/kubeconfig")
    data["falaj-dagster-instance"]["dagster.yaml"] = yaml.safe_dump(instance)
    return {
        **data,
        "falaj-trust": {"kubeconfig": yaml.safe_dump(kubeconfig)},
        "falaj-secrets": {"PGPASSWORD": "unset"},
        "falaj-servers": {"s3": store.credentials.read_text() if store.credentials else ""},
        "platform-service": {},
        "rollout-service": {},
        "inference-tls": {},
        "services-ca": {},
    }
