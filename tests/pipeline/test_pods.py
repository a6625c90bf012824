"""A training in pods, dagster-k8s and the kubernetes client as they are, on a double of the cluster; and what befalls pods."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
import yaml
from dagster._core.code_pointer import ModuleCodePointer
from dagster._core.launcher import LaunchRunContext
from dagster._core.origin import JobPythonOrigin, RepositoryPythonOrigin
from kubernetes_double import Cluster, Fault
from pipeline import pods_location as location

from platform_assets.stages.cluster.rules import containers_have_limits, images_are_pinned, pods_are_confined

pytestmark = [pytest.mark.slow]
PATIENCE_SECONDS = 90


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, checkout: Path) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("cluster")
    ours = {
        "PYTHONPATH": f"{checkout}:{checkout / 'tests'}",
        "FALAJ_HOME": str(folder),
        "HOLD": "",
        "POD_NAMESPACE": "unset",
        "DAGSTER_STEP_DELEGATING_EXECUTOR_SLEEP_SECONDS": "0.1",
    }
    found = Cluster(folder, config_maps={"falaj-environment": ours, "falaj-secrets": {}})
    kubeconfig = {
        "apiVersion": "v1", "kind": "Config", "current-context": "x", "users": [{"name": "x", "user": {}}],
        "clusters": [{"name": "x", "cluster": {"server": found.url}}],
        "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
    }  # fmt: skip
    (folder / "kubeconfig").write_text(yaml.safe_dump(kubeconfig))
    config = yaml.safe_load((checkout / "infra" / "dagster" / "cluster.yaml").read_text())
    del config["storage"]  # SQLite here
    del config["run_coordinator"]
    config["run_launcher"]["config"].update(load_incluster_config=False, kubeconfig_file=str(folder / "kubeconfig"), job_image="falaj:1")
    (folder / "dagster.yaml").write_text(yaml.safe_dump(config))
    try:
        yield found
    finally:
        found.close()


@pytest.fixture
def instance(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    monkeypatch.setenv("POD_NAMESPACE", "falaj-hospitality")
    monkeypatch.setenv("FALAJ_HOME", str(cluster.folder))
    cluster.objects.clear()
    cluster.faults.clear()
    cluster.met = 0
    cluster.open_gate()
    for file in cluster.folder.glob("attempt-*"):
        file.unlink()
    with dg.DagsterInstance.from_config(str(cluster.folder)) as found:
        yield found


def launch(instance: dg.DagsterInstance, cluster: Cluster) -> dg.DagsterRun:
    """Launch the job and wait until its run worker's pod has ended."""
    job = location.defs.resolve_job_def("train")
    code = RepositoryPythonOrigin("python", ModuleCodePointer("pipeline.pods_location", "defs"), container_image="falaj:1")
    run = instance.create_run_for_job(job, job_code_origin=JobPythonOrigin(job.name, code))
    instance.run_launcher.launch_run(LaunchRunContext(run, workspace=None))
    until = time.monotonic() + PATIENCE_SECONDS
    while not (found := instance.get_run_by_id(run.run_id)).is_finished:
        (worker,) = [job for job in cluster.of_kind("jobs") if job["metadata"]["name"] == f"dagster-run-{run.run_id}"]
        assert "failed" not in worker["status"], cluster.logs()
        assert time.monotonic() < until, (found.status, cluster.logs())
        time.sleep(0.1)
    return found


def attempts(cluster: Cluster) -> int:
    return len(list(cluster.folder.glob("attempt-*")))


def told(instance: dg.DagsterInstance, run: dg.DagsterRun) -> str:
    return "\n".join(str(entry.dagster_event.event_specific_data) for entry in instance.all_logs(run.run_id) if entry.dagster_event)


def _at_the_trained_step(what) -> Fault:
    """Let the first step pod be, and do this to the second once its work has begun."""

    def act(cluster: Cluster, pod: dict) -> bool:
        (container,) = pod["spec"]["containers"]
        if "nvidia.com/gpu" not in container["resources"]["limits"]:
            return False
        until = time.monotonic() + PATIENCE_SECONDS
        already = cluster.met
        while attempts(cluster) <= already:
            assert time.monotonic() < until
            time.sleep(0.02)
        cluster.met += 1
        what(cluster, pod)
        return True

    return act


def test_a_training_runs_in_pods_that_meet_the_rules_and_outlives_an_api_server_that_is_away(
    instance: dg.DagsterInstance, cluster: Cluster
) -> None:
    gate = cluster.close_gate("away")

    def go_away(found: Cluster, _: dict) -> None:
        found.refused, found.is_away = 0, True
        while found.refused < 4:  # all that the client asks before it gives up, once
            time.sleep(0.02)
        found.is_away = False
        with gate.open("w"):
            pass

    cluster.faults.append(_at_the_trained_step(go_away))
    run = launch(instance, cluster)
    assert cluster.refused >= 4
    assert attempts(cluster) == 1  # nobody started the step again, though nobody could say how it was
    assert run.status == dg.DagsterRunStatus.SUCCESS
    made = instance.get_latest_materialization_event(location.TRAINED)
    assert made.asset_materialization.metadata["accuracy"].value > 0.95
    pods = cluster.of_kind("pods")
    assert {pod["metadata"]["namespace"] for pod in pods} == {"falaj-hospitality"}
    assert len(pods) == 3  # the run's own, and one a step
    jobs = cluster.of_kind("jobs")
    for rule in (pods_are_confined, containers_have_limits, images_are_pinned):
        assert [str(fault) for fault in rule([{**job, "kind": "Job"} for job in jobs])] == []
    asked = [job["spec"]["template"]["spec"] for job in jobs]
    on_gpu = [pod for pod in asked if "nvidia.com/gpu" in pod["containers"][0]["resources"]["limits"]]
    assert [(pod["nodeSelector"], pod["priorityClassName"]) for pod in on_gpu] == [({"falaj.ae/pool": "gpu"}, "falaj-high")]


def test_a_step_whose_pod_is_evicted_killed_for_memory_or_lost_with_its_node_is_tried_again_in_a_new_one(
    instance: dg.DagsterInstance, cluster: Cluster
) -> None:
    cluster.close_gate("befalls")
    cluster.faults += [
        _at_the_trained_step(lambda found, pod: found.evict(pod, "The node was low on memory")),
        _at_the_trained_step(lambda found, pod: found.kill(pod, reason="OOMKilled", exitCode=137)),
        _at_the_trained_step(lambda found, pod: (found.open_gate(), found.lose(pod))),
    ]
    run = launch(instance, cluster)
    assert run.status == dg.DagsterRunStatus.SUCCESS
    assert attempts(cluster) == 4
    assert told(instance, run).count("Discovered failed Kubernetes job") >= 3
    ends = [pod["status"] for pod in cluster.of_kind("pods") if pod["status"]["phase"] == "Failed"]
    assert [one.get("reason") for one in ends] == ["Evicted", None]  # the third is gone with its node
    assert ends[1]["containerStatuses"][0]["state"]["terminated"]["reason"] == "OOMKilled"
