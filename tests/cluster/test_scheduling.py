"""Where pods go, and who gives way: the scheduler's own word, on nodes that claim to have GPUs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from cluster.api import Api
from cluster.control_plane import until
from cluster.nodes import Nodes
from cluster.probes import gpus, phase, pods, probe, until_gone, until_phase, until_unschedulable

ON_GPU_1 = {"nodeSelector": {"falaj.ae/pool": "gpu", "kubernetes.io/hostname": "gpu-1"}}


@pytest.fixture(autouse=True)
def tidy(tenant: str, admin: Api, nodes: Nodes) -> Iterator[None]:
    yield
    left = [one["metadata"]["name"] for one in admin.items(pods(tenant)) if one["spec"]["containers"][0]["image"] == "probe:1"]
    for name in left:
        admin.delete(f"{pods(tenant)}/{name}")
    for name in left:
        until_gone(admin, tenant, name)


def test_the_tenants_own_workloads_have_a_place_on_the_premises(tenant: str, admin: Api, nodes: Nodes) -> None:
    """Their images are not there, so they wait for them: admitted, given the home, and bound to a node."""

    def placed() -> dict[str, str]:
        found = [one for one in admin.items(pods(tenant)) if one["spec"].get("nodeName")]
        return {one["metadata"]["labels"].get("app.kubernetes.io/name", "?"): one["spec"]["nodeName"] for one in found}

    with_the_home = {"code", "daemon", "web", "rollout", "inference"}
    until(lambda: placed().keys() >= with_the_home, what="a node for each workload that has the home")
    assert set(placed().values()) <= set(nodes.up)


def test_a_pod_for_another_jurisdiction_finds_no_node(tenant: str, admin: Api) -> None:
    admin.post(pods(tenant), probe("abroad", nodeSelector={"falaj.ae/jurisdiction": "EU"}))
    assert "didn't match" in until_unschedulable(admin, tenant, "abroad")


def test_a_third_pod_waits_for_a_gpu_until_one_of_two_is_free(tenant: str, admin: Api, nodes: Nodes) -> None:
    for name in ("first", "second"):
        admin.post(pods(tenant), probe(name, resources=gpus(1), **ON_GPU_1))
        until_phase(admin, tenant, name, "Running")
    admin.post(pods(tenant), probe("third", resources=gpus(1), **ON_GPU_1))
    assert "Insufficient nvidia.com/gpu" in until_unschedulable(admin, tenant, "third")
    assert [nodes.running(name) for name in ("first", "second", "third")] == ["gpu-1", "gpu-1", None]
    admin.delete(f"{pods(tenant)}/first")
    until_phase(admin, tenant, "third", "Running")
    assert nodes.running("third") == "gpu-1"


def test_a_pod_of_a_higher_class_takes_the_gpus_of_a_lower_one(tenant: str, admin: Api, nodes: Nodes) -> None:
    admin.post(pods(tenant), probe("low", resources=gpus(2), priorityClassName="falaj-low", **ON_GPU_1))
    until_phase(admin, tenant, "low", "Running")
    admin.post(pods(tenant), probe("equal", resources=gpus(2), priorityClassName="falaj-low", **ON_GPU_1))
    until_unschedulable(admin, tenant, "equal")
    assert phase(admin, tenant, "low") == "Running"  # its equal waits
    admin.post(pods(tenant), probe("critical", resources=gpus(2), priorityClassName="falaj-critical", **ON_GPU_1))
    until_gone(admin, tenant, "low")
    until_phase(admin, tenant, "critical", "Running")
    assert nodes.running("low") is None
    assert phase(admin, tenant, "equal") == "Pending"
    told = [one["reason"] for one in admin.items(f"/api/v1/namespaces/{tenant}/events", fieldSelector="involvedObject.name=low")]
    assert "Preempted" in told


def test_each_impact_of_a_model_has_its_class_and_critical_is_the_highest(tenant: str, admin: Api) -> None:
    found = {one["metadata"]["name"]: one["value"] for one in admin.items("/apis/scheduling.k8s.io/v1/priorityclasses")}
    ours = [found[f"falaj-{impact}"] for impact in ("low", "normal", "high", "critical")]
    assert ours == sorted(ours)
    assert len(set(ours)) == 4


def test_a_pods_log_is_read_through_the_api_server(tenant: str, admin: Api) -> None:
    admin.post(pods(tenant), probe("speaks", command=("echo", "from within")))
    until_phase(admin, tenant, "speaks", "Succeeded")
    assert admin.get(f"{pods(tenant)}/speaks/log") == "from within\n"


def test_a_command_that_fails_is_reported_with_its_code(tenant: str, admin: Api) -> None:
    admin.post(pods(tenant), probe("fails", command=("sh", "-c", "exit 3")))
    until_phase(admin, tenant, "fails", "Failed")
    (container,) = admin.get(f"{pods(tenant)}/fails")["status"]["containerStatuses"]
    assert container["state"]["terminated"]["exitCode"] == 3
