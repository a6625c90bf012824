"""What a tenant may have, and what its ServiceAccounts may do, as the API server holds it."""

from __future__ import annotations

from pathlib import Path

import pytest
from cluster.api import Api, RefusedError
from cluster.control_plane import ControlPlane, until
from cluster.kubectl import Kubectl
from cluster.probes import gpus, pods, probe

OTHER = "falaj-other"


@pytest.fixture(scope="module", autouse=True)
def other(admin: Api) -> None:
    admin.post("/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": OTHER}})


@pytest.fixture(scope="module", autouse=True)
def counted(tenant: str, admin: Api) -> None:
    """A quota refuses everything until it has been counted once."""
    path = f"/api/v1/namespaces/{tenant}/resourcequotas/falaj-quota"
    until(lambda: admin.get(path).get("status", {}).get("used"), what="a counted quota")


def test_a_pod_beyond_the_tenants_gpus_is_refused(tenant: str, admin: Api) -> None:
    with pytest.raises(RefusedError, match=r"exceeded quota: falaj-quota, requested: requests.nvidia.com/gpu=9") as refused:
        admin.post(pods(tenant), probe("greedy", resources=gpus(9)))
    assert refused.value.code == 403


def test_pods_together_stay_within_the_quota(tenant: str, admin: Api) -> None:
    """Eight GPUs are the tenant's: two pods of four are made, a third of one is not, though no node has room for any."""
    try:
        for name in ("half", "other-half"):
            admin.post(pods(tenant), probe(name, resources=gpus(4)))
        with pytest.raises(RefusedError, match="exceeded quota"):
            admin.post(pods(tenant), probe("one-more", resources=gpus(1)))
    finally:
        for name in ("half", "other-half"):
            admin.delete(f"{pods(tenant)}/{name}", grace_seconds=0)


def test_services_that_open_the_cluster_are_refused(tenant: str, admin: Api) -> None:
    opened = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "open"}, "spec": {"type": "NodePort", "ports": [{"port": 80}]}}
    with pytest.raises(RefusedError, match="exceeded quota"):
        admin.post(f"/api/v1/namespaces/{tenant}/services", opened)


def test_a_container_that_says_nothing_gets_the_tenants_defaults(tenant: str, admin: Api) -> None:
    made = admin.post(f"{pods(tenant)}?dryRun=All", probe("modest"))
    resources = made["spec"]["containers"][0]["resources"]
    assert resources == {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "100m", "memory": "256Mi"}}


def test_a_container_beyond_the_most_is_refused(tenant: str, admin: Api) -> None:
    with pytest.raises(RefusedError, match="maximum memory usage per Container is 256Gi"):
        admin.post(pods(tenant), probe("vast", resources={"limits": {"memory": "300Gi"}, "requests": {"memory": "1Gi"}}))


def test_a_claim_beyond_the_most_is_refused(tenant: str, admin: Api) -> None:
    claim = {
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "vast"},
        "spec": {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1100Gi"}}},
    }  # fmt: skip
    with pytest.raises(RefusedError, match="maximum storage usage per PersistentVolumeClaim is 1Ti"):
        admin.post(f"/api/v1/namespaces/{tenant}/persistentvolumeclaims", claim)


MAY = [
    "create jobs",
    "get jobs",
    "list jobs",
    "delete jobs",
    "get jobs/status",
    "get pods",
    "list pods",
    "delete pods",
    "get pods/log",
    "list events",
]
MAY_NOT = [
    "create pods", "create pods/exec", "patch jobs", "get secrets", "list configmaps", "create serviceaccounts",
    "create rolebindings", "escalate roles", "impersonate users", "get nodes", "patch resourcequotas", "delete networkpolicies",
]  # fmt: skip


def _can(kubectl: Kubectl, config: Path, what: str, namespace: str) -> bool:
    verb, resource = what.split()
    resource, _, part = resource.partition("/")
    more = [f"--subresource={part}"] if part else []
    said = kubectl("auth", "can-i", verb, resource, *more, "--namespace", namespace, config=config, check=False)
    (answer,) = [line for line in said.splitlines() if line in ("yes", "no")]
    return answer == "yes"


def test_what_starts_pods_may_do_what_dagster_asks_and_nothing_else(
    plane: ControlPlane, kubectl: Kubectl, tenant: str, tmp_path: Path
) -> None:
    config = plane.account(tenant, "falaj-run").write_kubeconfig(tmp_path / "run.yaml")
    assert [what for what in MAY if not _can(kubectl, config, what, tenant)] == []
    assert [what for what in MAY_NOT if _can(kubectl, config, what, tenant)] == []
    assert [what for what in MAY if _can(kubectl, config, what, OTHER)] == []


@pytest.mark.parametrize("name", ["falaj-app", "falaj-inference"])
def test_all_others_may_do_nothing(plane: ControlPlane, kubectl: Kubectl, tenant: str, tmp_path: Path, name: str) -> None:
    config = plane.account(tenant, name).write_kubeconfig(tmp_path / "account.yaml")
    assert [what for what in MAY + MAY_NOT if _can(kubectl, config, what, tenant)] == []


def test_calls_with_an_accounts_own_token_are_answered_so(plane: ControlPlane, tenant: str) -> None:
    """Not only what is said of rights: the calls themselves."""
    run, app = plane.account(tenant, "falaj-run"), plane.account(tenant, "falaj-app")
    run.items(pods(tenant))
    run.items(f"/api/v1/namespaces/{tenant}/events")
    for api, method, path in (
        (run, "GET", f"/api/v1/namespaces/{tenant}/secrets"),
        (run, "POST", pods(tenant)),
        (run, "GET", pods(OTHER)),
        (run, "GET", "/api/v1/nodes"),
        (app, "GET", pods(tenant)),
    ):
        with pytest.raises(RefusedError, match="is forbidden: User") as refused:
            api.ask(method, path, probe("x") if method == "POST" else None)
        assert refused.value.code == 403


def test_nobody_without_a_token_is_answered(plane: ControlPlane) -> None:
    with pytest.raises(RefusedError) as refused:
        Api(plane.url, plane.authority.certificate, "guessed").get("/api")
    assert refused.value.code == 401


def test_only_what_starts_pods_is_given_a_token(tenant: str, admin: Api) -> None:
    def deployed() -> dict[str, dict]:
        found = [one for one in admin.items(pods(tenant)) if "app.kubernetes.io/name" in (one["metadata"].get("labels") or {})]
        return {one["metadata"]["labels"]["app.kubernetes.io/name"]: one["spec"] for one in found}

    names = {"code", "daemon", "web", "redis", "rollout", "inference"}
    until(lambda: deployed().keys() >= names, what="a pod of each workload, within the quota")
    at = "/var/run/secrets/kubernetes.io/serviceaccount"
    holders = {
        name
        for name, spec in deployed().items()
        if any(at == m["mountPath"] for c in spec["containers"] for m in c.get("volumeMounts", ()))
    }
    assert holders == {"daemon"}
