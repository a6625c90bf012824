"""The manifests on a real API server: what it knows it takes, as it is written, and what it does not know is told."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
from cluster.api import Api, RefusedError
from cluster.kubectl import TENANT, Kubectl, Manifests, Render, apply, as_list
from cluster.old_version import without_what_is_newer

FOLDERS = ("base", "overlays/onprem", "overlays/cloud", "overlays/hybrid", "overlays/edge")


def _apart(manifests: Manifests, suffix: str) -> Manifests:
    """The same in namespaces of their own: a claim's storage class, which overlays differ in, cannot be changed."""
    made = copy.deepcopy(manifests)
    for one in made:
        if one["kind"] == "Namespace":
            one["metadata"]["name"] += suffix
        elif "namespace" in one["metadata"]:
            one["metadata"]["namespace"] += suffix
        for subject in one.get("subjects", ()):
            if "namespace" in subject:
                subject["namespace"] += suffix
    return made


@pytest.mark.parametrize("folder", FOLDERS)
def test_what_the_api_server_knows_of_an_overlay_it_takes_and_keeps_as_written(kubectl: Kubectl, render: Render, folder: str) -> None:
    known, left_out = without_what_is_newer(render(folder))
    assert len(known) > len(left_out)
    suffix = "-" + folder.rpartition("/")[2]
    ours = _apart(known, suffix)
    spaces = [one for one in ours if one["kind"] == "Namespace"]
    within = ("--namespace", spaces[0]["metadata"]["name"]) if folder == "base" else ()
    try:
        apply(kubectl, spaces)
        said = apply(kubectl, ours, *within)
        assert len(said.splitlines()) == len(ours), said
        assert kubectl("diff", "-f", "-", *within, given=as_list(ours)) == ""  # what was kept is what was written
    finally:
        for one in spaces:
            kubectl("delete", "namespace", one["metadata"]["name"], "--wait=false")


def test_what_is_left_out_is_told_here_and_in_the_reference(
    plane: object, render: Render, checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    left_out = sorted(set().union(*(without_what_is_newer(render(folder))[1] for folder in FOLDERS)))
    with capsys.disabled():
        print("\nNot applied, since Kubernetes 1.20 does not know it (validated only):", *left_out, sep="\n  ")
    told = (checkout / "docs" / "reference" / "kubernetes.md").read_text()
    assert [line for line in left_out if line not in told] == []


def test_a_misspelt_field_is_refused(kubectl: Kubectl, render: Render) -> None:
    (quota,) = [one for one in render("overlays/onprem") if one["kind"] == "ResourceQuota"]
    bad = {**quota, "metadata": {"name": "x", "namespace": "default"}, "spec": {"hardest": {}}}
    with pytest.raises(AssertionError, match="hardest"):
        apply(kubectl, [bad])


def test_what_this_version_lacks_is_refused_not_dropped(kubectl: Kubectl, render: Render) -> None:
    """Each entry of what is left out is there for a reason: the API server refuses it."""
    everything = [one for folder in FOLDERS for one in render(folder)]
    known = [one for folder in FOLDERS for one in without_what_is_newer(render(folder))[0]]
    kept = {(one["apiVersion"], one["kind"]) for one in known}
    newer = {(one["apiVersion"], one["kind"]): one for one in everything if (one["apiVersion"], one["kind"]) not in kept}
    assert len(newer) > 10
    for one in newer.values():
        with pytest.raises(AssertionError, match=f'no matches for kind "{one["kind"]}"'):
            apply(kubectl, [{**one, "metadata": {"name": "x"}}])


def test_the_fields_that_are_left_out_are_refused(tenant: str, kubectl: Kubectl, render: Render) -> None:
    full = {(one["kind"], one["metadata"]["name"]): one for one in render("overlays/onprem")}
    for name, field in (("inference", "sleep"), ("code", "grpc")):
        with pytest.raises(AssertionError, match=f"unknown field.*{field}|{field}"):
            apply(kubectl, [full["Deployment", name]])


def test_labels_of_pod_security_and_network_policies_stand(tenant: str, admin: Api) -> None:
    """Kept for what reads them: this version has neither the admission of Pod Security nor a network."""
    labels = admin.get(f"/api/v1/namespaces/{TENANT}")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    policies = {
        one["metadata"]["name"]: one["spec"] for one in admin.items(f"/apis/networking.k8s.io/v1/namespaces/{TENANT}/networkpolicies")
    }
    assert policies["default-deny"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    assert len(policies) >= 8


def test_the_api_server_itself_refuses_what_means_nothing(admin: Api) -> None:
    bad = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "x"}, "spec": {"hard": {"pods": "-1"}}}
    with pytest.raises(RefusedError, match="must be greater than or equal to 0"):
        admin.post("/api/v1/namespaces/default/resourcequotas", bad)
