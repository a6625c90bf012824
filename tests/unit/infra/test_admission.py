"""What the cluster itself refuses: the policies' own CEL, evaluated on objects as they go over the wire."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from admission import refusal

RUN = "system:serviceaccount:falaj-hospitality:falaj-run"
Spoil = Callable[[dict[str, Any]], object]


def read_policy(path: Path) -> dict[str, Any]:
    policy, binding = yaml.safe_load_all(path.read_text())
    assert binding["spec"]["policyName"] == policy["metadata"]["name"]
    assert binding["spec"]["validationActions"] == ["Deny"]
    return policy


@pytest.fixture(scope="module")
def of_jobs(checkout: Path) -> dict[str, Any]:
    return read_policy(checkout / "infra" / "kubernetes" / "system" / "run-jobs.yaml")


@pytest.fixture(scope="module")
def run_job(checkout: Path) -> dict[str, Any]:
    """A job of what the instance's file gives a run's pods."""
    given = yaml.safe_load((checkout / "infra" / "dagster" / "cluster.yaml").read_text())["run_launcher"]["config"]
    sources = [{"configMapRef": {"name": name}} for name in given["env_config_maps"]]
    sources += [{"secretRef": {"name": name}} for name in given["env_secrets"]]
    own = {"name": "POD_NAMESPACE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}}
    container = {"name": "dagster", "image": "falaj:1", "env": [{"name": "A", "value": "b"}, own], "envFrom": sources}
    volumes = [*given["volumes"], {"name": "dagster-instance", "configMap": {"name": given["instance_config_map"]}}]
    pod = {"serviceAccountName": given["service_account_name"], "containers": [container], "volumes": volumes}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "x"}, "spec": {"template": {"spec": pod}}}


def test_a_run_makes_the_jobs_that_the_instances_file_describes(of_jobs: dict[str, Any], run_job: dict[str, Any]) -> None:
    assert refusal(of_jobs, run_job, user=RUN) is None
    bare = copy.deepcopy(run_job)
    del bare["spec"]["template"]["spec"]["volumes"]
    bare["spec"]["template"]["spec"]["containers"][0] = {"name": "dagster", "image": "falaj:1"}
    assert refusal(of_jobs, bare, user=RUN) is None


def _more_volumes(**volume: Any) -> Spoil:
    return lambda pod: pod["volumes"].append({"name": "more", **volume})


def _from_secret(name: str) -> list[dict[str, Any]]:
    return [{"name": "KEY", "valueFrom": {"secretKeyRef": {"name": name, "key": "tls.key"}}}]


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (_more_volumes(secret={"secretName": "services-ca"}), "no other volumes"),
        (_more_volumes(secret={"optional": True}), "no other volumes"),
        (_more_volumes(projected={"sources": [{"secret": {"name": "services-ca"}}]}), "no other volumes"),
        (_more_volumes(csi={"driver": "secrets-store.csi.k8s.io", "nodePublishSecretRef": {"name": "services-ca"}}), "no other volumes"),
        (_more_volumes(hostPath={"path": "/var/lib/kubelet"}), "no other volumes"),
        (_more_volumes(persistentVolumeClaim={"claimName": "redis"}), "no other volumes"),
        (lambda pod: pod["containers"][0].update(env=_from_secret("services-ca")), "no Secret but falaj-secrets"),
        (lambda pod: pod["containers"][0].update(envFrom=[{"secretRef": {"name": "falaj-servers"}}]), "no Secret but falaj-secrets"),
        (lambda pod: pod.update(initContainers=[{"name": "i", "env": _from_secret("services-ca")}]), "no Secret but falaj-secrets"),
        (lambda pod: pod.update(serviceAccountName="falaj-app"), "have the account falaj-run"),
        (lambda pod: pod.pop("serviceAccountName"), "have the account falaj-run"),
    ],
)
def test_a_run_makes_no_job_that_reaches_further(of_jobs: dict[str, Any], run_job: dict[str, Any], *, spoil: Spoil, why: str) -> None:
    job = copy.deepcopy(run_job)
    spoil(job["spec"]["template"]["spec"])
    found = refusal(of_jobs, job, user=RUN)
    assert found is not None
    assert why in found
    assert refusal(of_jobs, job, user="system:serviceaccount:kube-system:job-maker") is None, "what others make is not this policy's"
    assert refusal(of_jobs, job, user="falaj-run") is None


@pytest.mark.parametrize(
    ("selector", "refused"), [({"falaj.ae/site": "onprem"}, False), ({"falaj.ae/site": "cloud"}, True), ({}, True), (None, True)]
)
def test_a_pod_of_a_sensitive_tenant_that_does_not_ask_for_the_premises_is_refused(
    checkout: Path, *, selector: dict[str, str] | None, refused: bool
) -> None:
    policy = read_policy(checkout / "infra" / "kubernetes" / "overlays" / "hybrid" / "on-the-premises.yaml")
    spec = {"containers": []} if selector is None else {"containers": [], "nodeSelector": selector}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": spec}
    found = refusal(policy, pod, user=RUN, namespace={"falaj.ae/sensitive": "true"})
    assert (found is not None) is refused
    assert refusal(policy, pod, user=RUN, namespace={}) is None
