"""Pods get what the assets are bound to, whatever a launcher of runs writes: seen in the bodies that reach the Kubernetes API.

The API is a small server that keeps each job it is asked for, and grants or forbids it: nothing runs.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import dagster as dg
import pytest
import yaml
from dagster._core.code_pointer import ModuleCodePointer
from dagster._core.launcher import LaunchRunContext
from dagster._core.origin import JobPythonOrigin, RepositoryPythonOrigin

from platform_assets.components.executors import executor_of
from platform_assets.components.step import build_step
from platform_assets.errors import StageError
from platform_assets.specs.compute import AcceleratorSpec, ComputeProfile
from platform_assets.stages.placement.binding import bind

CPU = ComputeProfile(cpu=2, memory="4Gi", price_aed_per_hour=1)
GPU = CPU.model_copy(update={"accelerator": AcceleratorSpec(count=2), "memory": "64Gi", "node_selector": {"falaj.ae/pool": "gpu"}})
GREEDY = json.dumps(
    {"container_config": {"resources": {"limits": {"nvidia.com/gpu": "8", "cpu": "64"}}}, "pod_spec_config": {"node_selector": {"a": "b"}}}
)
HOSTILE = {
    "dagster-k8s/config": GREEDY,
    "dagster-k8s/resource_requirements": '{"limits": {"cpu": "64"}}',
    "dagster/priority": "9999",
    "falaj/gpus": "8",
}
RUN_POD = {"requests": {"cpu": "250m", "memory": "768Mi"}, "limits": {"cpu": "1", "memory": "1536Mi"}}


@dataclass
class Cluster:
    """Keeps every job that it is asked for."""

    jobs: list[dict] = field(default_factory=list)
    forbids: bool = False
    port: int = 0

    def serve(self) -> ThreadingHTTPServer:
        cluster = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                cluster.jobs.append(body)
                answer = {"kind": "Status", "reason": "Forbidden", "message": "no quota"} if cluster.forbids else body
                self._answer(answer, code=403 if cluster.forbids else 201)

            def do_GET(self) -> None:
                self._answer({"kind": "PodList", "items": []}, code=200)

            def do_DELETE(self) -> None:
                self._answer({"kind": "Status", "status": "Success"}, code=200)

            def _answer(self, body: dict, *, code: int) -> None:
                self.send_response(code)
                self.send_header("content-type", "application/json")
                self.end_headers()
                self.wfile.write(json.dumps(body).encode())

            def log_message(self, *_: object) -> None: ...

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = server.server_port
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        return server

    @property
    def pods(self) -> list[dict]:
        return [job["spec"]["template"]["spec"] for job in self.jobs]


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    found = Cluster()
    server = found.serve()
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def instance(cluster: Cluster, tmp_path: Path, checkout: Path) -> Iterator[dg.DagsterInstance]:
    """The instance of infra/dagster/cluster.yaml, but for where the API is."""
    kubeconfig = {
        "apiVersion": "v1", "kind": "Config", "current-context": "x", "users": [{"name": "x", "user": {}}],
        "clusters": [{"name": "x", "cluster": {"server": f"http://127.0.0.1:{cluster.port}"}}],
        "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
    }  # fmt: skip
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(kubeconfig))
    config = yaml.safe_load((checkout / "infra" / "dagster" / "cluster.yaml").read_text())
    config["run_launcher"]["config"].update(
        job_namespace="falaj", load_incluster_config=False, kubeconfig_file=str(tmp_path / "kubeconfig"), job_image="falaj:1"
    )
    del config["storage"]
    (tmp_path / "dagster.yaml").write_text(yaml.safe_dump(config))
    with dg.DagsterInstance.from_config(str(tmp_path)) as found:
        yield found


def _definitions(steps: str) -> dg.Definitions:
    def probe(name: str, profile: ComputeProfile) -> dg.AssetsDefinition:
        return build_step(
            ["model", name, "trained"], lambda _: None, deps=[], group="g", description="d", owner="team:x", kinds=set(), code_version="1",
            binding=bind(profile, name=name, tenant="hospitality", model=name, impact="high"),
        )  # fmt: skip

    parts = dg.ResourceDefinition.none_resource()
    both = [probe("cpu", CPU), probe("gpu", GPU)]
    return dg.Definitions(both, jobs=[dg.define_asset_job("probes")], resources={"parts": parts}, executor=executor_of(steps))


def step_pods_job() -> dg.JobDefinition:
    """Found by name when the run is executed."""
    return _definitions("pods").resolve_job_def("probes")


def launch(instance: dg.DagsterInstance, *, steps: str, assets: list[str]) -> None:
    job = _definitions(steps).resolve_job_def("probes")
    selection = {dg.AssetKey(["model", name, "trained"]) for name in assets}
    code = RepositoryPythonOrigin("python", ModuleCodePointer("platform_assets.definitions", "defs"), container_image="falaj:1")
    run = instance.create_run_for_job(
        job.get_subset(asset_selection=selection),
        tags=HOSTILE,
        job_code_origin=JobPythonOrigin(job.name, code),
        asset_selection=frozenset(selection),
    )
    instance.run_launcher.launch_run(LaunchRunContext(run, workspace=None))


def test_a_run_in_one_process_gets_what_its_asset_is_bound_to(instance: dg.DagsterInstance, cluster: Cluster) -> None:
    launch(instance, steps="process", assets=["gpu"])
    (pod,) = cluster.pods
    gpu = {"cpu": "2000m", "memory": "64Gi", "nvidia.com/gpu": "2"}
    assert pod["containers"][0]["resources"] == {"requests": gpu, "limits": gpu}
    assert pod["nodeSelector"] == {"falaj.ae/pool": "gpu"}
    assert pod["priorityClassName"] == "falaj-high"
    assert cluster.jobs[0]["spec"]["template"]["metadata"]["labels"]["falaj.ae/tenant"] == "hospitality"


def test_a_run_of_cpu_assets_gets_no_gpu_though_its_launcher_asked_for_eight(instance: dg.DagsterInstance, cluster: Cluster) -> None:
    launch(instance, steps="process", assets=["cpu"])
    (pod,) = cluster.pods
    cpu = {"cpu": "2000m", "memory": "4Gi"}
    assert pod["containers"][0]["resources"] == {"requests": cpu, "limits": cpu}
    assert not pod.get("nodeSelector")


def test_a_run_whose_steps_have_pods_of_their_own_gets_the_launchers_small_one(instance: dg.DagsterInstance, cluster: Cluster) -> None:
    launch(instance, steps="pods", assets=["cpu", "gpu"])
    (pod,) = cluster.pods
    assert pod["containers"][0]["resources"] == RUN_POD


def test_one_process_for_steps_with_and_without_gpus_is_refused(instance: dg.DagsterInstance, cluster: Cluster) -> None:
    with pytest.raises(StageError, match="it would hold a GPU through steps that may not have one"):
        launch(instance, steps="process", assets=["cpu", "gpu"])
    assert cluster.jobs == []


@pytest.mark.parametrize("asset", ["cpu", "gpu"])
def test_a_step_pod_gets_what_its_asset_is_bound_to(instance: dg.DagsterInstance, cluster: Cluster, asset: str) -> None:
    cluster.forbids = True  # the pod is seen and refused: the run ends at once
    with dg.execute_job(
        dg.reconstructable(step_pods_job), instance, tags=HOSTILE, asset_selection=[dg.AssetKey(["model", asset, "trained"])]
    ) as ended:
        assert not ended.success
    (pod,) = cluster.pods
    asked = {"cpu": "2000m", "memory": "4Gi"} if asset == "cpu" else {"cpu": "2000m", "memory": "64Gi", "nvidia.com/gpu": "2"}
    assert pod["containers"][0]["resources"] == {"requests": asked, "limits": asked}
    assert pod.get("nodeSelector") == ({"falaj.ae/pool": "gpu"} if asset == "gpu" else None)


def test_a_run_cannot_bring_resources_for_a_step_in_its_config(instance: dg.DagsterInstance, cluster: Cluster) -> None:
    greedy = {"execution": {"config": {"per_step_k8s_config": {"model__cpu__trained": json.loads(GREEDY)}}}}
    with pytest.raises(dg.DagsterInvalidConfigError, match="per_step_k8s_config"):
        dg.execute_job(dg.reconstructable(step_pods_job), instance, run_config=greedy)
    assert cluster.jobs == []


def test_the_executor_of_a_laptop_is_one_process() -> None:
    assert executor_of("process") is dg.in_process_executor
    assert executor_of("pods").name == "k8s"
