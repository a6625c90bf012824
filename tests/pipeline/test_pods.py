"""A training in pods, dagster-k8s and the kubernetes client as they are, on a double of the cluster; and what befalls pods."""

from __future__ import annotations

import logging
import os
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import dagster as dg
import pytest
import yaml
from admission import refusal
from dagster._core.code_pointer import ModuleCodePointer
from dagster._core.launcher import LaunchRunContext, WorkerStatus
from dagster._core.origin import JobPythonOrigin, RepositoryPythonOrigin
from dagster._daemon.monitoring.run_monitoring import monitor_started_run, monitor_starting_run
from dagster_k8s import PipesK8sClient
from kubernetes import client
from kubernetes.client.exceptions import ApiException
from kubernetes.config import new_client_from_config
from kubernetes_double import Cluster, Fault, hurry
from pipeline import pods_location as location

from platform_assets.stages.cluster.rules import containers_have_limits, images_are_pinned, pods_are_confined
from resources.dagster_instance.k8s_pipes import WholePodLogs

pytestmark = [pytest.mark.slow]
PATIENCE_SECONDS = 240


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
    policy = next(iter(yaml.safe_load_all((checkout / "infra" / "kubernetes" / "system" / "run-jobs.yaml").read_text())))
    found.refuses = lambda job: refusal(policy, job, user="system:serviceaccount:falaj-hospitality:falaj-run")
    kubeconfig = {
        "apiVersion": "v1", "kind": "Config", "current-context": "x", "users": [{"name": "x", "user": {}}],
        "clusters": [{"name": "x", "cluster": {"server": found.url}}],
        "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
    }  # fmt: skip
    (folder / "kubeconfig").write_text(yaml.safe_dump(kubeconfig))
    config = yaml.safe_load((checkout / "infra" / "dagster" / "cluster.yaml").read_text())
    del config["storage"]  # SQLite here
    del config["run_coordinator"]
    config["run_launcher"]["config"].update(
        load_incluster_config=False,
        kubeconfig_file=str(folder / "kubeconfig"),
        job_image="falaj:1",
        image_wait_seconds=1,
        event_wait_seconds=1,
    )
    config["run_monitoring"]["start_timeout_seconds"] = 1
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
    cluster.unpullable = lambda _: False
    cluster.open_gate()
    hurry()
    for file in cluster.folder.glob("attempt-*"):
        file.unlink()
    with dg.DagsterInstance.from_config(str(cluster.folder)) as found:
        yield found


def start(instance: dg.DagsterInstance) -> str:
    """Launch the job; return its run's id."""
    job = location.defs.resolve_job_def("train")
    code = RepositoryPythonOrigin("python", ModuleCodePointer("pipeline.pods_location", "defs"), container_image="falaj:1")
    run = instance.create_run_for_job(job, job_code_origin=JobPythonOrigin(job.name, code))
    instance.run_launcher.launch_run(LaunchRunContext(run, workspace=None))
    return run.run_id


def finish(instance: dg.DagsterInstance, cluster: Cluster, run_id: str) -> dg.DagsterRun:
    """Wait until a run has ended, as long as a pod of its worker lives."""
    until = time.monotonic() + PATIENCE_SECONDS
    while not (found := instance.get_run_by_id(run_id)).is_finished:
        workers = [job for job in cluster.of_kind("jobs") if job["metadata"]["name"].startswith(f"dagster-run-{run_id}")]
        alive = [job for job in workers if "failed" not in job["status"]]
        assert alive, cluster.logs()
        assert time.monotonic() < until, (found.status, cluster.logs())
        time.sleep(0.1)
    return found


def launch(instance: dg.DagsterInstance, cluster: Cluster) -> dg.DagsterRun:
    return finish(instance, cluster, start(instance))


def attempts(cluster: Cluster) -> int:
    return len(list(cluster.folder.glob("attempt-*")))


def told(instance: dg.DagsterInstance, run: dg.DagsterRun) -> str:
    return "\n".join(str(entry.dagster_event.event_specific_data) for entry in instance.all_logs(run.run_id) if entry.dagster_event)


def messages(instance: dg.DagsterInstance, run_id: str) -> str:
    return "\n".join(entry.message or entry.user_message for entry in instance.all_logs(run_id))


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


def test_a_run_may_not_make_a_job_that_mounts_the_authoritys_key(instance: dg.DagsterInstance, cluster: Cluster) -> None:
    del instance
    batch = client.BatchV1Api(new_client_from_config(str(cluster.folder / "kubeconfig")))
    volume = client.V1Volume(name="key", secret=client.V1SecretVolumeSource(secret_name="services-ca"))
    pod = client.V1PodSpec(service_account_name="falaj-run", containers=[client.V1Container(name="c", image="falaj:1")], volumes=[volume])
    job = client.V1Job(
        api_version="batch/v1", kind="Job", metadata=client.V1ObjectMeta(name="spy"),
        spec=client.V1JobSpec(template=client.V1PodTemplateSpec(spec=pod)),
    )  # fmt: skip
    with pytest.raises(ApiException, match="falaj-servers and platform-service; no other volumes") as refused:
        batch.create_namespaced_job("falaj-hospitality", job)
    assert refused.value.status == 422
    assert cluster.of_kind("jobs") == []


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


def test_a_step_whose_pod_is_evicted_or_lost_is_tried_again_as_it_was_and_one_out_of_memory_on_the_larger_profile(
    instance: dg.DagsterInstance, cluster: Cluster
) -> None:
    cluster.close_gate("befalls")
    cluster.faults += [
        _at_the_trained_step(lambda found, pod: found.evict(pod, "The node was low on memory")),
        _at_the_trained_step(lambda found, pod: found.kill(pod, reason="OOMKilled", exitCode=137)),
        _at_the_trained_step(lambda found, pod: (found.open_gate(), found.lose(pod))),
    ]
    run = launch(instance, cluster)
    assert run.status == dg.DagsterRunStatus.SUCCESS  # though no asset has a retry policy
    ran_on = [(cluster.folder / f"attempt-{number}").read_text() for number in range(4)]
    assert ran_on == ["as declared", "as declared", "gpu-large", "gpu-large"]
    jobs = [one["spec"]["template"]["spec"] for one in cluster.of_kind("jobs")]
    memory = [one["containers"][0]["resources"]["limits"]["memory"] for one in jobs if "nodeSelector" in one]
    assert memory == ["4Gi", "4Gi", "16Gi", "16Gi"]
    said = told(instance, run)
    assert "was taken from its node (The node was low on memory)" in said
    assert "Its pod is gone: its node was lost" in said
    assert "It is tried again on 'gpu-large' (16Gi in place of 4Gi, 4.00 AED an hour)." in said


def test_a_step_whose_lost_pod_got_another_in_its_place_is_tried_again(instance: dg.DagsterInstance, cluster: Cluster) -> None:
    cluster.close_gate("replaced")
    cluster.faults.append(_at_the_trained_step(lambda found, pod: (found.open_gate(), found.lose_and_replace(pod))))
    run = launch(instance, cluster)
    assert run.status == dg.DagsterRunStatus.SUCCESS
    assert attempts(cluster) == 2
    # The run's, whose pod ends a moment after its run, and of the steps none that failed.
    wait_for(lambda: [job["status"] for job in cluster.of_kind("jobs")] == [{"succeeded": 1}] * 4, cluster)
    said = told(instance, run)
    assert said.count("Its pod was lost with its node, or deleted, and the one that was put in its place does not begin it again.") == 1
    assert "again even though it was already started" in messages(instance, run.run_id)


def test_a_step_whose_image_is_not_there_fails_with_a_sentence_and_leaves_no_pod(instance: dg.DagsterInstance, cluster: Cluster) -> None:
    cluster.unpullable = lambda pod: "nodeSelector" in pod["spec"]
    run = launch(instance, cluster)
    assert run.status == dg.DagsterRunStatus.FAILURE
    said = told(instance, run)
    assert re.search(r"Its image falaj:1 could not be pulled within \d+ s \(ImagePullBackOff: Back-off pulling image", said)
    assert "name an image that the registry has" in said
    assert [pod for pod in cluster.of_kind("pods") if pod["status"]["phase"] == "Pending"] == []
    assert attempts(cluster) == 0


def worker_of(cluster: Cluster, run_id: str, *, resumed: int) -> dict:
    suffix = f"-{resumed}" if resumed else ""
    (found,) = [pod for pod in cluster.of_kind("pods") if pod["metadata"]["labels"]["job-name"] == f"dagster-run-{run_id}{suffix}"]
    return found


def resume(instance: dg.DagsterInstance, run_id: str) -> None:
    """Let Dagster's monitor look at the run once it can see that its worker is dead."""
    record = instance.get_run_record_by_id(run_id)
    until = time.monotonic() + PATIENCE_SECONDS
    while instance.run_launcher.check_run_worker_health(record.dagster_run).status == WorkerStatus.RUNNING:
        assert time.monotonic() < until
        time.sleep(0.05)
    monitor_started_run(instance, cast("Any", None), record, logging.getLogger())


def wait_for(what: Callable[[], object], cluster: Cluster) -> None:
    until = time.monotonic() + PATIENCE_SECONDS
    while not what():
        assert time.monotonic() < until, cluster.logs()
        time.sleep(0.05)


def test_a_run_whose_worker_dies_goes_on_in_another_whether_its_step_works_on_or_died_with_it(
    instance: dg.DagsterInstance, cluster: Cluster
) -> None:
    cluster.close_gate("worker")
    # Three tries are refused, the fourth is heard and answered so; the client gives up, and is asked again.
    cluster.faults.append(lambda found, _: setattr(found, "deaf", 3) or setattr(found, "mute", 1) or True)
    run_id = start(instance)
    wait_for(lambda: attempts(cluster) == 1, cluster)
    cluster.is_away = True
    health = instance.run_launcher.check_run_worker_health(instance.get_run_by_id(run_id))
    assert health.status == WorkerStatus.RUNNING  # no answer is no death
    cluster.is_away = False

    cluster.kill(worker_of(cluster, run_id, resumed=0), reason="Error", exitCode=137)
    resume(instance, run_id)
    wait_for(lambda: "Checking on status of in-progress step" in messages(instance, run_id), cluster)
    steps = [job for job in cluster.of_kind("jobs") if "nodeSelector" in job["spec"]["template"]["spec"]]
    assert (attempts(cluster), len(steps)) == (1, 1)  # the one that was at work still is

    cluster.open_gate()
    cluster.kill(worker_of(cluster, run_id, resumed=1), reason="Error", exitCode=137)
    (step,) = [pod for pod in cluster.of_kind("pods") if "nodeSelector" in pod["spec"]]
    cluster.lose(step)
    cluster.forget(steps[0])  # owned by the worker's pod: the cluster takes it away
    resume(instance, run_id)
    run = finish(instance, cluster, run_id)
    assert run.status == dg.DagsterRunStatus.SUCCESS
    assert attempts(cluster) == 2
    assert "Its pod is gone: its node was lost" in told(instance, run)


def monitor(instance: dg.DagsterInstance, cluster: Cluster, run_id: str) -> dg.DagsterRun:
    """Let Dagster's monitor look at a run until it has given it up."""

    def is_over() -> bool:
        record = instance.get_run_record_by_id(run_id)
        if record.dagster_run.status == dg.DagsterRunStatus.NOT_STARTED:  # launched here, not by the daemon, which says STARTING
            monitor_starting_run(instance, record, logging.getLogger())
        elif record.dagster_run.status == dg.DagsterRunStatus.STARTED:
            monitor_started_run(instance, cast("Any", None), record, logging.getLogger())
        return instance.get_run_by_id(run_id).is_finished

    wait_for(is_over, cluster)
    return instance.get_run_by_id(run_id)


NO_IMAGE = r"Its image falaj:1 could not be pulled within \d+ s \(ImagePullBackOff: Back-off pulling image"


def test_a_run_whose_own_image_is_not_there_fails_with_a_sentence_and_leaves_no_pod(instance: dg.DagsterInstance, cluster: Cluster) -> None:
    cluster.unpullable = lambda _: True
    run_id = start(instance)
    assert monitor(instance, cluster, run_id).status == dg.DagsterRunStatus.FAILURE
    assert re.search(NO_IMAGE, messages(instance, run_id))
    assert cluster.of_kind("jobs") + cluster.of_kind("pods") == []  # nothing holds its quota, or begins once the image is there


def test_a_run_whose_worker_dies_and_whose_image_is_gone_by_then_fails_with_a_sentence(
    instance: dg.DagsterInstance, cluster: Cluster
) -> None:
    cluster.close_gate("gone")
    run_id = start(instance)
    wait_for(lambda: attempts(cluster) == 1, cluster)
    cluster.unpullable = lambda _: True
    cluster.kill(worker_of(cluster, run_id, resumed=0), reason="Error", exitCode=137)
    assert monitor(instance, cluster, run_id).status == dg.DagsterRunStatus.FAILURE
    assert len(re.findall(NO_IMAGE, messages(instance, run_id))) == 3  # of each worker in its place: the run is given up with the third
    assert [pod for pod in cluster.of_kind("pods") if pod["status"]["phase"] == "Pending"] == []
    (step,) = [pod for pod in cluster.of_kind("pods") if "nodeSelector" in pod["spec"]]
    cluster.kill(step)


def run_pipes(instance: dg.DagsterInstance, cluster: Cluster, *, connections: int, **more: Any) -> list[int]:
    """Let a pod say eight messages, the last when its log has been asked for so often; return those that arrived."""
    gate = cluster.folder / f"gate-{uuid.uuid4().hex}"
    os.mkfifo(gate)
    program = (
        "from dagster_pipes import open_dagster_pipes as opened\n"
        "with opened() as pipes:\n"
        "    for number in range(8):\n"
        f"        _ = open({str(gate)!r}).read() if number == 7 else ''\n"
        "        pipes.report_custom_message({'number': number})\n"
    )
    before = cluster.streams.connections

    def let_go() -> None:
        wait_for(lambda: cluster.streams.connections == before + connections, cluster)
        gate.write_text("")

    letting = threading.Thread(target=let_go)
    letting.start()

    @dg.asset(required_resource_keys={"pods"})
    def outside(context):  # dagster refuses deferred annotations here
        ended = context.resources.pods.run(
            context=context, image="falaj:1", namespace="falaj-hospitality", command=["python", "-c", program]
        )
        return dg.MaterializeResult(metadata={"numbers": [one["number"] for one in ended.get_custom_messages()]})

    client = PipesK8sClient(load_incluster_config=False, kubeconfig_file=str(cluster.folder / "kubeconfig"), poll_interval=0.05, **more)
    result = dg.materialize([outside], resources={"pods": client}, instance=instance)
    letting.join()
    (made,) = result.asset_materializations_for_node("outside")
    return made.metadata["numbers"].value


def test_a_log_that_is_cut_goes_on_from_where_it_was(instance: dg.DagsterInstance, cluster: Cluster) -> None:
    cluster.streams.cuts += [3, 6]
    assert run_pipes(instance, cluster, connections=3) == list(range(8))


def test_a_log_that_ends_while_its_pod_runs_is_read_on(instance: dg.DagsterInstance, cluster: Cluster) -> None:
    cluster.streams.ends += [3]
    assert run_pipes(instance, cluster, connections=1) == [0, 1]  # dagster-k8s's own reader: when this fails, ours is needed no more
    cluster.streams.ends += [3, 6]
    assert run_pipes(instance, cluster, connections=3, message_reader=WholePodLogs()) == list(range(8))
