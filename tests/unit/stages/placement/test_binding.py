"""What a profile means to Dagster and Kubernetes: valid for dagster-k8s, GPUs only where declared, never what a launcher wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from platform_assets.errors import StageError
from platform_assets.specs.compute import AcceleratorSpec, ComputeProfile, Impact, StorageSpec, TolerationSpec
from platform_assets.stages.placement.binding import COMPUTE, GPUS, IMPACT, K8S_CONFIG, K8S_RESOURCES, bind, bind_pod, bind_run

CPU = ComputeProfile(cpu=2, memory="4Gi", price_aed_per_hour=1)
GPU = ComputeProfile(
    accelerator=AcceleratorSpec(count=4),
    nodes=2,
    cpu=32,
    memory="256Gi",
    price_aed_per_hour=58,
    node_selector={"falaj.ae/pool": "gpu"},
    tolerations=(TolerationSpec(key="nvidia.com/gpu", effect="NoSchedule"), TolerationSpec(key="falaj.ae/spot", value="true")),
)
profiles = st.builds(
    ComputeProfile,
    cpu=st.floats(0.1, 128),
    memory=st.sampled_from(["512Mi", "1.5Gi", "1Ti"]),
    price_aed_per_hour=st.just(1.0),
    processes=st.none() | st.integers(1, 8),
    accelerator=st.none() | st.builds(AcceleratorSpec, count=st.integers(1, 8)),
    node_selector=st.sampled_from([{}, {"zone": "a"}]),
    tolerations=st.sampled_from([(), GPU.tolerations]),
    storage=st.sampled_from([StorageSpec(), StorageSpec(tier="memory", cache="8Gi")]),
)


def config_of(tags: dict[str, str]) -> dict:
    return json.loads(tags[K8S_CONFIG])


@settings(deadline=None)  # cores are shared
@given(profile=profiles)
def test_every_binding_is_a_pod_that_dagster_k8s_and_kubernetes_take(profile: ComputeProfile) -> None:
    from dagster_k8s.job import get_user_defined_k8s_config
    from dagster_k8s.models import k8s_model_from_dict
    from kubernetes.client import V1Container, V1PodSpec

    config = get_user_defined_k8s_config(bind(profile, name="p", tenant="t", model="m").tags)
    k8s_model_from_dict(V1Container, {"name": "x", **config.container_config})
    k8s_model_from_dict(V1PodSpec, {"containers": [{"name": "x"}], **config.pod_spec_config})
    limits = config.container_config["resources"]["limits"]
    assert limits == config.container_config["resources"]["requests"]
    assert ("nvidia.com/gpu" in limits) == (profile.accelerator is not None)


def test_a_gpu_profile_asks_for_its_gpus_a_node_and_has_a_pool() -> None:
    binding = bind(GPU, name="gpu-large", tenant="hospitality", model="digits", impact="high")
    config = config_of(dict(binding.tags))
    assert config["container_config"]["resources"]["limits"] == {"cpu": "32000m", "memory": "256Gi", "nvidia.com/gpu": "4"}
    assert config["pod_spec_config"]["tolerations"] == [
        {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"},
        {"key": "falaj.ae/spot", "operator": "Equal", "value": "true"},
    ]
    assert config["pod_spec_config"]["node_selector"] == {"falaj.ae/pool": "gpu"}
    assert config["pod_spec_config"]["priority_class_name"] == "falaj-high"
    assert config["pod_template_spec_metadata"]["labels"]["falaj.ae/tenant"] == "hospitality"
    assert (binding.tags[COMPUTE], binding.tags[GPUS], binding.pool) == ("gpu-large", "8", "falaj-gpu-large")


def test_a_cpu_profile_has_no_pool_and_its_own_priority_class_wins() -> None:
    binding = bind(CPU.model_copy(update={"priority_class": "mine"}), name="cpu", impact="critical")
    assert binding.pool is None
    assert config_of(dict(binding.tags))["pod_spec_config"] == {"priority_class_name": "mine"}


def test_what_a_launcher_wrote_on_a_run_is_overwritten() -> None:
    steps = [bind(CPU, name="cpu", impact="low").tags, bind(GPU, name="gpu", impact="high").tags, {}]
    written = {K8S_CONFIG: '{"container_config": {}}', K8S_RESOURCES: "{}", GPUS: "64", COMPUTE: "none", IMPACT: "critical", "mine": "1"}
    assert bind_run(written, steps) == {COMPUTE: "cpu,gpu", GPUS: "8", IMPACT: "high", K8S_CONFIG: "{}", K8S_RESOURCES: "{}"}
    assert bind_run({}, [{}]) == {COMPUTE: "", GPUS: "0", IMPACT: ""}


def test_one_pod_for_several_steps_is_as_large_as_the_largest() -> None:
    large = CPU.model_copy(update={"memory": "64Gi", "cpu": 1.5})
    steps = [bind(CPU, name="small").tags, bind(large, name="large").tags, {}]
    assert bind_pod(steps)["container_config"]["resources"]["limits"] == {"cpu": "1500m", "memory": "64Gi"}
    assert bind_pod([{}]) == {}


def test_one_pod_never_holds_a_gpu_through_steps_that_may_not_have_one() -> None:
    with pytest.raises(StageError, match=r"profiles with GPUs \(gpu\) and without \(cpu\)"):
        bind_pod([bind(CPU, name="cpu").tags, bind(GPU, name="gpu").tags])


def test_every_business_impact_has_a_priority_class_on_the_cluster(checkout: Path) -> None:
    documents = yaml.safe_load_all((checkout / "infra" / "kubernetes" / "system" / "priorities" / "priority-classes.yaml").read_text())
    values = {document["metadata"]["name"]: document["value"] for document in documents}
    named = [
        config_of(dict(bind(CPU, name="p", impact=impact).tags))["pod_spec_config"]["priority_class_name"] for impact in get_args(Impact)
    ]
    assert sorted(values, key=values.__getitem__) == named
