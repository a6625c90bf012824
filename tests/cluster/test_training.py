"""A whole small training through dagster-k8s on a real control plane, with the tenant's own instance file, account, quota and settings."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import dagster as dg
import pytest
import yaml
from cluster import location
from cluster.api import Api, Object, RefusedError
from cluster.control_plane import ControlPlane, until
from cluster.kubectl import Kubectl
from cluster.nodes import PLATFORM, Nodes
from cluster.probes import gpus, pods, probe, until_gone, until_phase
from dagster._core.code_pointer import ModuleCodePointer
from dagster._core.launcher import LaunchRunContext
from dagster._core.origin import JobPythonOrigin, RepositoryPythonOrigin
from dagster._daemon.monitoring.run_monitoring import monitor_started_run
from postgres_process import own_database

STEP = {"labelSelector": "app.kubernetes.io/component=step_worker"}


class Site:
    """The tenant's Dagster, as its daemon holds it: launches with the account of run pods, and looks at the cluster as an administrator."""

    def __init__(self, instance: dg.DagsterInstance, admin: Api, tenant: str, nodes: Nodes) -> None:
        self.instance, self.admin, self.tenant, self.nodes = instance, admin, tenant, nodes
        self._images = nodes.machine.images
        self.home = nodes.machine.claim(tenant, "falaj-home")

    def launch(self, image: str = PLATFORM) -> str:
        for file in self.home.glob("attempt-*"):
            file.unlink()
        job = location.defs.resolve_job_def("train")
        code = RepositoryPythonOrigin("python", ModuleCodePointer("cluster.location", "defs"), container_image=image)
        run = self.instance.create_run_for_job(job, job_code_origin=JobPythonOrigin(job.name, code))
        self.instance.run_launcher.launch_run(LaunchRunContext(run, workspace=None))
        return run.run_id

    def finish(self, run_id: str) -> dg.DagsterRun:
        """Wait until a run has ended, with the daemon's monitor looking after its worker."""

        def is_finished() -> bool:
            record = self.instance.get_run_record_by_id(run_id)
            assert record is not None
            if record.dagster_run.status == dg.DagsterRunStatus.STARTED:
                monitor_started_run(self.instance, cast("Any", None), record, logging.getLogger())
            return record.dagster_run.is_finished

        until(is_finished, what=f"run {run_id}, of which is known:\n{self.told(run_id)}")
        return self._of(run_id)

    def _of(self, run_id: str) -> dg.DagsterRun:
        found = self.instance.get_run_by_id(run_id)
        assert found is not None
        return found

    def told(self, run_id: str) -> str:
        events = [(entry.message, entry.dagster_event) for entry in self.instance.all_logs(run_id)]
        return "\n".join(f"{message} {event.event_specific_data if event else ''}" for message, event in events)

    def pods(self, run_id: str, *, component: str) -> list[Object]:
        chosen = f"app.kubernetes.io/component={component},dagster/run-id={run_id}"
        return self.admin.items(pods(self.tenant), labelSelector=chosen)

    def trained_pod(self, run_id: str) -> Object | None:
        """The pod of the step with the GPU whose work has begun."""
        found = [pod for pod in self.pods(run_id, component="step_worker") if "trained" in pod["metadata"]["labels"]["dagster/op"]]
        alive = [pod for pod in found if pod["status"]["phase"] == "Running" and self.nodes.running(pod["metadata"]["name"])]
        return alive[-1] if alive else None

    def attempts(self) -> int:
        return len(list(self.home.glob("attempt-*")))

    def hold(self, run_name: str) -> Path:
        """Let trainings that begin from now on wait for `let_go`."""
        gate = self.home / f"gate-{run_name}"
        os.mkfifo(gate)
        self._images[PLATFORM]["HOLD"] = str(gate)
        return gate

    def let_go(self, gate: Path | None = None) -> None:
        self._images[PLATFORM]["HOLD"] = ""
        if gate is not None:
            with gate.open("w"):
                pass


@pytest.fixture(scope="module")
def site(plane: ControlPlane, tenant: str, nodes: Nodes, postgres: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    admin, folder = plane.api(), tmp_path_factory.mktemp("daemon")
    database = own_database(postgres)
    admin.patch(f"/api/v1/namespaces/{tenant}/secrets/falaj-secrets", {"stringData": {"DAGSTER_POSTGRES_URL": database}})
    # The instance as the tenant's pods are given it, but for how this process, which is no pod, finds the API server.
    applied = admin.get(f"/api/v1/namespaces/{tenant}/configmaps/falaj-dagster-instance")["data"]["dagster.yaml"]
    config: dict[str, Any] = yaml.safe_load(applied)
    account = plane.account(tenant, "falaj-run").write_kubeconfig(folder / "kubeconfig", namespace=tenant)
    config["run_launcher"]["config"].update(load_incluster_config=False, kubeconfig_file=str(account))
    (folder / "dagster.yaml").write_text(yaml.safe_dump(config))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DAGSTER_POSTGRES_URL", database)
        patch.setenv("POD_NAMESPACE", tenant)
        with dg.DagsterInstance.from_config(str(folder)) as instance:
            yield Site(instance, admin, tenant, nodes)


@pytest.fixture(autouse=True)
def tidy(site: Site) -> Iterator[None]:
    yield
    site.let_go()
    jobs = f"/apis/batch/v1/namespaces/{site.tenant}/jobs"
    for one in site.admin.items(jobs):
        with contextlib.suppress(RefusedError):  # a step's job may have gone with the run's pod, which owns it
            site.admin.ask("DELETE", f"{jobs}/{one['metadata']['name']}", {"propagationPolicy": "Background"})
    until(lambda: not site.admin.items(pods(site.tenant), **STEP), what="no step's pod")


def test_a_training_runs_in_the_tenants_namespace_under_its_quota(
    site: Site, kubectl: Kubectl, plane: ControlPlane, tmp_path: Path
) -> None:
    run_id = site.launch()
    run = site.finish(run_id)
    assert run.status == dg.DagsterRunStatus.SUCCESS, site.told(run_id)
    made = site.instance.get_latest_materialization_event(location.TRAINED)
    assert made is not None
    assert made.asset_materialization is not None
    assert made.asset_materialization.metadata["accuracy"].value > 0.95
    (worker,) = site.pods(run_id, component="run_worker")
    steps = site.pods(run_id, component="step_worker")
    assert len(steps) == 2
    on_gpu = [pod for pod in steps if "nvidia.com/gpu" in pod["spec"]["containers"][0]["resources"]["limits"]]
    assert [(pod["spec"]["nodeSelector"], pod["spec"]["priorityClassName"]) for pod in on_gpu] == [({"falaj.ae/pool": "gpu"}, "falaj-high")]
    assert on_gpu[0]["spec"]["nodeName"].startswith("gpu-")
    assert on_gpu[0]["spec"]["priority"] == 100000
    # Steps end with the run: its pod owns their jobs.
    jobs = site.admin.items(
        f"/apis/batch/v1/namespaces/{site.tenant}/jobs", labelSelector=f"app.kubernetes.io/component=step_worker,dagster/run-id={run_id}"
    )
    assert [[owner["name"] for owner in job["metadata"]["ownerReferences"]] for job in jobs] == [[worker["metadata"]["name"]]] * 2
    config = plane.account(site.tenant, "falaj-run").write_kubeconfig(tmp_path / "run.yaml", namespace=site.tenant)
    assert "RUN_SUCCESS" in kubectl("logs", worker["metadata"]["name"], config=config)


def test_a_step_beyond_the_quota_waits_and_goes_on_when_there_is_room(site: Site) -> None:
    quota = f"/api/v1/namespaces/{site.tenant}/resourcequotas/falaj-quota"
    site.admin.patch(quota, {"spec": {"hard": {"requests.nvidia.com/gpu": "0"}}})
    try:
        run_id = site.launch()

        def refused() -> bool:
            found = site.admin.items(f"/api/v1/namespaces/{site.tenant}/events", fieldSelector="reason=FailedCreate")
            return any("exceeded quota" in one["message"] for one in found)

        until(refused, what="a step's pod refused by the quota")
        assert site.attempts() == 0
    finally:
        site.admin.patch(quota, {"spec": {"hard": {"requests.nvidia.com/gpu": "8"}}})
    assert site.finish(run_id).status == dg.DagsterRunStatus.SUCCESS
    assert site.attempts() == 1


def test_a_step_that_is_evicted_is_tried_again_in_a_new_pod(site: Site) -> None:
    gate = site.hold("evicted")
    run_id = site.launch()
    until(lambda: site.attempts() == 1, what="the training begun")
    pod = site.trained_pod(run_id)
    assert pod is not None
    site.let_go()
    name = pod["metadata"]["name"]
    node = site.nodes.running(name)
    assert node is not None
    site.nodes.up[node].evict(name, "The node was low on resource: memory.")
    assert site.finish(run_id).status == dg.DagsterRunStatus.SUCCESS, site.told(run_id)
    assert site.attempts() == 2
    ended = site.admin.get(f"{pods(site.tenant)}/{name}")["status"]
    assert (ended["phase"], ended["reason"]) == ("Failed", "Evicted")
    gate.unlink()


def test_a_training_whose_gpus_a_critical_pod_takes_is_told_waits_and_is_tried_again(site: Site) -> None:
    gate = site.hold("preempted")
    run_id = site.launch()
    until(lambda: site.attempts() == 1, what="the training begun")
    taken = site.trained_pod(run_id)
    assert taken is not None
    site.let_go()
    nodes = sorted(("gpu-1", "gpu-2"), key=lambda name: name == taken["spec"]["nodeName"])  # the other first: it has nowhere to go then
    for name in nodes:
        on = {"nodeSelector": {"kubernetes.io/hostname": name}, "priorityClassName": "falaj-critical"}
        site.admin.post(pods(site.tenant), probe(f"critical-{name}", resources=gpus(2), **on))
        until_phase(site.admin, site.tenant, f"critical-{name}", "Running")
    until_gone(site.admin, site.tenant, taken["metadata"]["name"])
    assert site.attempts() == 1
    for name in nodes:
        site.admin.delete(f"{pods(site.tenant)}/critical-{name}")
    assert site.finish(run_id).status == dg.DagsterRunStatus.SUCCESS, site.told(run_id)
    assert site.attempts() == 2
    gate.unlink()


@pytest.mark.parametrize("worker_on", ["cpu-1", "gpu-1"])
def test_a_training_whose_node_is_lost_is_tried_again_on_another_whether_its_run_was_there_or_not(site: Site, worker_on: str) -> None:
    """This version's job controller puts another pod in the place of one that was taken off a lost node; the step in it does not begin."""
    gate = site.hold(f"lost-with-{worker_on}")
    with site.nodes.only(worker_on):
        run_id = site.launch()
        until(lambda: [one for one in site.pods(run_id, component="run_worker") if "nodeName" in one["spec"]], what="a node for the run")
    with site.nodes.only("cpu-1", "gpu-1"):
        until(lambda: site.attempts() == 1, what="the training begun")
    site.let_go()
    pod = site.trained_pod(run_id)
    assert pod is not None
    assert pod["spec"]["nodeName"] == "gpu-1"
    site.nodes.lose("gpu-1")
    try:
        assert site.finish(run_id).status == dg.DagsterRunStatus.SUCCESS, site.told(run_id)
        assert "again even though it was already started" in site.told(run_id)
        assert "the one that was put in its place does not begin it again" in site.told(run_id)
        found = [one for one in site.pods(run_id, component="step_worker") if "trained" in one["metadata"]["labels"]["dagster/op"]]
        assert sorted(one["spec"]["nodeName"] for one in found) == ["gpu-1", "gpu-2", "gpu-2"]  # lost, in its place, tried again
        assert site.attempts() == 2
        assert ("Resuming run" in site.told(run_id)) == (worker_on == "gpu-1")
    finally:
        site.nodes.replace("gpu-1")
    gate.unlink()
