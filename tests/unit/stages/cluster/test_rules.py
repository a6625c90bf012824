"""A cluster of one tenant that is as it should be, and every way to spoil it that the rules know."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from platform_assets.stages.cluster.__main__ import main
from platform_assets.stages.cluster.rules import JURISDICTION, judge, nodes_of
from platform_assets.stages.cluster.workloads import Workload, workloads

GOOD = """
apiVersion: v1
kind: Namespace
metadata:
  name: falaj-x
  labels: {falaj.ae/tenant: x, falaj.ae/jurisdiction: AE, pod-security.kubernetes.io/enforce: restricted}
---
apiVersion: v1
kind: ResourceQuota
metadata: {name: q, namespace: falaj-x}
---
apiVersion: v1
kind: LimitRange
metadata: {name: l, namespace: falaj-x}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: deny, namespace: falaj-x}
spec: {podSelector: {}, policyTypes: [Ingress, Egress]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: some, namespace: falaj-x}
spec:
  podSelector: {}
  ingress: [{from: [{podSelector: {matchLabels: {a: b}}}], ports: [{port: 1}]}]
  egress: [{to: [{ipBlock: {cidr: 10.0.0.1/32}}]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: r, namespace: falaj-x}
rules: [{apiGroups: [batch], resources: [jobs], verbs: [get]}]
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: home, namespace: falaj-x}
spec: {accessModes: [ReadWriteMany]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: d, namespace: falaj-x}
spec:
  template:
    spec:
      securityContext: {runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}}
      affinity:
        nodeAffinity:
          requiredDuringSchedulingIgnoredDuringExecution:
            nodeSelectorTerms: [{matchExpressions: [{key: falaj.ae/jurisdiction, operator: In, values: [AE]}]}]
      volumes: [{name: home, persistentVolumeClaim: {claimName: home}}]
      containers:
        - name: c
          image: registry.example/c:1.2
          resources: {requests: {cpu: 1, memory: 1Gi}, limits: {cpu: 1, memory: 1Gi}}
          securityContext: {allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}
"""


def good() -> dict[str, Any]:
    """The manifests by kind, and the pod and its container by name."""
    found = list(yaml.safe_load_all(GOOD))
    named = {one["kind"] + ("/some" if one["metadata"]["name"] == "some" else ""): one for one in found}
    pod = named["Deployment"]["spec"]["template"]["spec"]
    return {**named, "pod": pod, "container": pod["containers"][0], "all": found}


def refused(change: Callable[[dict[str, Any]], object]) -> list[str]:
    named = good()
    change(named)
    return [str(fault) for fault in judge(named["all"])]


def test_what_is_as_it_should_be_is_not_refused() -> None:
    theirs = [_team(space, f"postgresql://a@b/{space}", f"s3://f/{space}") for space in ("falaj-x", "falaj-y")]
    assert judge([*good()["all"], _config_map("falaj-environment", FALAJ_ENV="team"), *theirs]) == []


def _terms(m: dict[str, Any]) -> list[dict]:
    return m["pod"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]


def _drop(m: dict[str, Any], kind: str) -> None:
    m["all"].remove(m[kind])


SPOILT: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "privileged": (lambda m: m["container"]["securityContext"].update(privileged=True), "securityContext.privileged"),
    "escalates": (lambda m: m["container"]["securityContext"].pop("allowPrivilegeEscalation"), "allowPrivilegeEscalation"),
    "capability kept": (lambda m: m["container"]["securityContext"].update(capabilities={"drop": ["NET_RAW"]}), "capabilities"),
    "capability added": (
        lambda m: m["container"]["securityContext"].update(capabilities={"drop": ["ALL"], "add": ["SYS_ADMIN"]}),
        "capabilities",
    ),
    "writable root": (lambda m: m["container"]["securityContext"].pop("readOnlyRootFilesystem"), "readOnlyRootFilesystem"),
    "may be root": (lambda m: m["pod"]["securityContext"].pop("runAsNonRoot"), "runAsNonRoot"),
    "is root": (lambda m: m["container"]["securityContext"].update(runAsUser=0), "runAsNonRoot"),
    "non-root taken back by a container": (lambda m: m["container"]["securityContext"].update(runAsNonRoot=False), "runAsNonRoot"),
    "no seccomp": (lambda m: m["pod"]["securityContext"].update(seccompProfile={"type": "Unconfined"}), "seccompProfile"),
    "privileged init container": (
        lambda m: m["pod"].update(initContainers=[{**copy.deepcopy(m["container"]), "securityContext": {"privileged": True}}]),
        "initContainers.c.securityContext.privileged",
    ),
    "the node's network": (lambda m: m["pod"].update(hostNetwork=True), "hostNetwork"),
    "the node's processes": (lambda m: m["pod"].update(hostPID=True), "hostPID"),
    "a folder of the node": (lambda m: m["pod"].update(volumes=[{"name": "v", "hostPath": {"path": "/"}}]), "volumes.v"),
    "no memory limit": (lambda m: m["container"]["resources"]["limits"].pop("memory"), "resources.limits: there is no memory"),
    "no resources": (lambda m: m["container"].pop("resources"), "resources.requests: there is no cpu"),
    "latest": (lambda m: m["container"].update(image="registry.example:5000/c:latest"), "image: found"),
    "no tag": (lambda m: m["container"].update(image="registry.example:5000/c"), "image: found"),
    "no image": (lambda m: m["container"].pop("image"), "image: found ''"),
    "no quota": (lambda m: _drop(m, "ResourceQuota"), "has no ResourceQuota"),
    "quota elsewhere": (lambda m: m["ResourceQuota"]["metadata"].update(namespace="falaj-y"), "has no ResourceQuota"),
    "no limits for what names none": (lambda m: _drop(m, "LimitRange"), "has no LimitRange"),
    "nobody's namespace": (lambda m: m["Namespace"]["metadata"]["labels"].pop("falaj.ae/tenant"), "is no tenant's"),
    "pod security not enforced": (
        lambda m: m["Namespace"]["metadata"]["labels"].update({"pod-security.kubernetes.io/enforce": "baseline"}),
        "write restricted",
    ),
    "any jurisdiction": (lambda m: m["pod"].pop("affinity"), "may come onto any node"),
    "another jurisdiction": (lambda m: _terms(m)[0]["matchExpressions"][0].update(values=["AE", "US"]), "['AE', 'US']"),
    "another way in": (lambda m: _terms(m).append({"matchExpressions": []}), "may come onto any node"),
    "preferred only": (
        lambda m: m["pod"].update(affinity={"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}}),
        "may come onto any node",
    ),
    "no law": (lambda m: m["Namespace"]["metadata"]["labels"].pop("falaj.ae/jurisdiction"), "nowhere"),
    "sensitive in the cloud": (
        lambda m: m["Namespace"]["metadata"]["labels"].update({"falaj.ae/sensitive": "true"}),
        "falaj.ae/site onprem",
    ),
    "no default deny": (lambda m: _drop(m, "NetworkPolicy"), "none denies all pods both ways"),
    "denies one way": (lambda m: m["NetworkPolicy"]["spec"].update(policyTypes=["Ingress"]), "none denies all pods both ways"),
    "open to all": (lambda m: m["NetworkPolicy/some"]["spec"].update(ingress=[{}]), "open to everybody"),
    "open to all namespaces": (
        lambda m: m["NetworkPolicy/some"]["spec"]["ingress"][0].update({"from": [{"namespaceSelector": {}}]}),
        "open to everybody",
    ),
    "out to the world": (
        lambda m: m["NetworkPolicy/some"]["spec"].update(egress=[{"to": [{"ipBlock": {"cidr": "0.0.0.0/0"}}]}]),
        "spec.egress[0].to",
    ),
    "a star": (lambda m: m["Role"]["rules"][0].update(verbs=["*"]), "rules[0].verbs"),
    "a secret": (lambda m: m["all"].append({"kind": "Secret", "metadata": {"name": "s"}, "stringData": {"a": "b"}}), "ExternalSecret"),
    "SQLite for several nodes": (lambda m: m["container"].update(args=["--uri=sqlite:////home/a.db"]), "an SQLite database on a volume"),
    "SQLite by a variable": (
        lambda m: m["container"].update(env=[{"name": "U", "value": "sqlite:////home/a.db"}]),
        "an SQLite database on a volume",
    ),
    "a laptop's parts": (lambda m: m["all"].append(_config_map("falaj-environment", FALAJ_STEPS="pods")), "data.FALAJ_ENV: found None"),
    "a database of another tenant": (
        lambda m: m["all"].extend(_team(space, "postgresql://a@b/c", f"s3://f/{space}") for space in ("falaj-x", "falaj-y")),
        "ConfigMap/falaj-y/falaj-team: data.team.toml.postgresql.url: postgresql://a@b/c is that of falaj-x",
    ),
    "a place of another tenant": (
        lambda m: m["all"].extend(_team(space, f"postgresql://a@b/{space}", "s3://f/c") for space in ("falaj-x", "falaj-y")),
        "data.team.toml.store.url",
    ),
    "a team file that is none": (lambda m: m["all"].append(_config_map("falaj-team", **{"team.toml": "[postgresql"})), "it is no TOML"),
}  # fmt: skip


def _config_map(name: str, *, namespace: str = "falaj-x", **data: str) -> dict[str, Any]:
    return {"kind": "ConfigMap", "metadata": {"name": name, "namespace": namespace}, "data": data}


def _team(namespace: str, database: str, store: str) -> dict[str, Any]:
    text = f'[postgresql]\nurl = "{database}"\n[store]\nurl = "{store}"\n'
    return _config_map("falaj-team", namespace=namespace, **{"team.toml": text})


@pytest.mark.parametrize("name", SPOILT)
def test_what_is_spoilt_is_refused_with_where_and_why(name: str) -> None:
    change, sentence = SPOILT[name]
    assert any(sentence in fault for fault in refused(change)), refused(change)


@pytest.mark.parametrize("kind", ["Pod", "StatefulSet", "DaemonSet", "Job", "CronJob", "InferenceService", "TrainingRuntime"])
def test_a_pod_is_found_in_whatever_asks_for_it(kind: str) -> None:
    pod = {"containers": [{"name": "c", "image": "c:latest"}]}
    template = {"template": {"spec": pod}}
    spec = {
        "Pod": pod, "CronJob": {"jobTemplate": {"spec": template}}, "InferenceService": {"predictor": pod},
        "TrainingRuntime": {"template": {"spec": {"replicatedJobs": [{"name": "node", "template": {"spec": template}}]}}},
    }.get(kind, template)  # fmt: skip
    (found,) = workloads([{"kind": kind, "metadata": {"name": "n"}, "spec": spec}])
    assert found.pod == pod
    assert any("image" in fault.field for fault in judge([{"kind": kind, "metadata": {"name": "n"}, "spec": spec}]))


TERMS = st.lists(st.lists(st.sets(st.sampled_from("abc"), min_size=1), max_size=2), max_size=3)


@given(terms=TERMS, selected=st.sampled_from(["a", None]), node=st.sampled_from("abc"))
def test_nodes_of_agrees_with_a_scheduler_asked_node_by_node(terms: list[list[set[str]]], selected: str | None, node: str) -> None:
    pod: dict[str, Any] = {} if selected is None else {"nodeSelector": {JURISDICTION: selected}}
    if terms:
        written = [{"matchExpressions": [{"key": JURISDICTION, "operator": "In", "values": sorted(one)} for one in term]} for term in terms]
        pod["affinity"] = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": written}}}
    fits = selected in (None, node) and (not terms or any(all(node in one for one in term) for term in terms))
    found = nodes_of(Workload("w", "n", pod), JURISDICTION)
    assert (found is None or node in found) == fits


def test_the_command_refuses_with_each_sentence_and_a_status(tmp_path, capsys) -> None:
    file = tmp_path / "m.yaml"
    file.write_text(GOOD)
    assert main([str(file)]) == 0
    file.write_text(GOOD.replace("c:1.2", "c:latest"))
    assert main([str(file)]) == 1
    assert "image: found 'registry.example/c:latest'" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["", "a: [", "- 1", "\x00"])
def test_what_is_no_manifest_is_one_sentence(tmp_path, capsys, text: str) -> None:
    file = tmp_path / "m.yaml"
    file.write_text(text)
    assert main([str(file)]) == 2
    assert capsys.readouterr().err.strip()
