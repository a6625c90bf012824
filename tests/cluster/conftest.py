"""One real control plane for the tier, three nodes that claim to have GPUs or none, and kubectl."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from cluster.api import Api
from cluster.control_plane import ControlPlane, find_programs, run_control_plane
from cluster.kubectl import TENANT, Kubectl, Manifests, Render, apply
from cluster.kubelet import Machine
from cluster.log_server import serve_logs
from cluster.nodes import NODES, PLATFORM, PROBE, Nodes
from cluster.old_version import without_what_is_newer
from forking import fork_after


@pytest.fixture(scope="session")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    programs = find_programs()
    if programs is None:
        pytest.skip("no Kubernetes control plane is built here: `make test-cluster` builds it once")
    if shutil.which("kubectl") is None:
        pytest.fail("kubectl is not on this machine: install Kubernetes' client, 1.32 or the like")
    with run_control_plane(programs, tmp_path_factory.mktemp("control-plane"), nodes=list(NODES)) as found:
        yield found


@pytest.fixture(scope="session")
def admin(plane: ControlPlane) -> Api:
    return plane.api()


@pytest.fixture(scope="session")
def kubectl(plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Kubectl:
    """Run kubectl as the administrator, or as who a kubeconfig says; its output, CalledProcessError with what it said where it fails."""
    folder = tmp_path_factory.mktemp("kubectl")
    config = plane.api().write_kubeconfig(folder / "admin.yaml")

    def run(*arguments: str, given: str | None = None, config: Path = config, check: bool = True) -> str:
        command = ["kubectl", f"--cache-dir={folder / 'cache'}", f"--kubeconfig={config}", *arguments]
        made = subprocess.run(command, input=given, capture_output=True, text=True, check=False, env={**os.environ, "HOME": str(folder)})
        assert not check or made.returncode == 0, f"{' '.join(command[3:])}: {made.stderr}"
        return made.stdout + made.stderr

    return run


@pytest.fixture(scope="session")
def render(checkout: Path) -> Render:
    def rendered(folder: str) -> Manifests:
        root = checkout / "infra" / "kubernetes" / folder
        made = subprocess.run(["kubectl", "kustomize", root], capture_output=True, text=True, check=True)
        return list(yaml.safe_load_all(made.stdout))

    return rendered


@pytest.fixture(scope="session")
def machine(plane: ControlPlane, checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    forks = fork_after("dagster", "dagster._cli", "dagster_k8s", "resources.dagster_instance.k8s_launcher", "dagster_postgres")
    path = f"{checkout}:{checkout / 'tests'}"
    platform = {"PATH": os.environ["PATH"], "PYTHONPATH": path, "HOLD": "", "DAGSTER_STEP_DELEGATING_EXECUTOR_SLEEP_SECONDS": "0.1"}
    images = {PLATFORM: platform, PROBE: {"PATH": os.environ["PATH"]}}
    found = Machine(tmp_path_factory.mktemp("machine"), forks, plane.address, images)
    with serve_logs(found, plane.authority):
        yield found


@pytest.fixture(scope="session")
def tenant(plane: ControlPlane, kubectl: Kubectl, render: Render, admin: Api) -> str:
    """The overlay `onprem` as applied, and what other projects' controllers would have made: a volume, secrets, the bundle of trust."""
    rendered = render("overlays/onprem")
    known, _ = without_what_is_newer(rendered)
    apply(kubectl, [one for one in known if one["kind"] == "Namespace"])
    apply(kubectl, known)
    home = {"claimRef": {"namespace": TENANT, "name": "falaj-home"}, "storageClassName": "cephfs", "hostPath": {"path": "/nowhere"}}
    size = {"capacity": {"storage": "200Gi"}, "accessModes": ["ReadWriteMany"]}
    trust = {"bundle.pem": plane.authority.certificate.read_text()}
    secrets = {one["spec"]["target"]["name"]: _keys(one["spec"]) for one in rendered if one["kind"] == "ExternalSecret"}
    secrets |= {one["spec"]["secretName"]: ["tls.crt", "tls.key", "ca.crt"] for one in rendered if one["kind"] == "Certificate"}
    made = [
        {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "home"}, "spec": {**size, **home}},
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "falaj-trust", "namespace": TENANT}, "data": trust},
        *(
            {
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {"name": name, "namespace": TENANT},
                "stringData": dict.fromkeys(keys, "unset"),
            }
            for name, keys in secrets.items()
        ),
    ]
    apply(kubectl, made)
    return TENANT


def _keys(external: dict[str, Any]) -> list[str]:
    template = external["target"].get("template")
    return list(template["data"]) if template else [one["secretKey"] for one in external["data"]]


@pytest.fixture(scope="session")
def nodes(plane: ControlPlane, machine: Machine) -> Iterator[Nodes]:
    found = Nodes(plane, machine)
    try:
        for name in NODES:
            found.start(name)
        yield found
        assert [fault for one in found.up.values() for fault in one.faults] == []
    finally:
        for one in found.up.values():
            one.close()
