"""A Deployment of the inference server that was scaled to nothing and is scaled up again: what passes until the first answer is printed.

The control plane is real; the container is a local process (the kubelet's double), so no image is pulled and no container made. What asks for the
scaling on a cluster, KEDA, is not here: `kubectl scale` stands in its place.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from cluster.api import Object
from cluster.control_plane import PATIENCE_SECONDS, until
from cluster.kubectl import TENANT, Kubectl, Render
from cluster.nodes import Nodes
from cluster.probes import pods
from serving_process import MODEL, Server

from platform_assets.errors import ServingError
from resources.settings import CHECKOUT
from resources.testing.serving import TINY_ROW

NAME, IMAGE = "inference-rare", "inference:1"
KEPT = ("--serving", "--keys", "--log", "--workers", "--memory-mb", "--follow", "--close-log-seconds")  # no TLS, no team's servers
GOES = 3


@pytest.fixture
def live(tmp_path: Path) -> Server:
    """A home where a release is live, and nobody serves it; whoever asks asks at the replica's port."""
    server = Server(tmp_path)
    server.start()
    server.deploy()
    server.kill()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server.settings = replace(server.settings, serve_url=f"http://127.0.0.1:{port}")
    return server


@pytest.fixture
def rare(tenant: str, nodes: Nodes, render: Render, live: Server) -> Iterator[str]:
    """The overlay's own Deployment under another name, without replicas; its folders are this machine's."""
    nodes.machine.images[IMAGE] = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": str(CHECKOUT)}
    (made,) = [one for one in render("overlays/onprem") if one["kind"] == "Deployment" and one["metadata"]["name"] == "inference"]
    labels = {"app.kubernetes.io/name": NAME}
    made["metadata"] = {"name": NAME, "namespace": tenant, "labels": labels}
    made["spec"] |= {"replicas": 0, "selector": {"matchLabels": labels}}
    template = made["spec"]["template"]
    template["metadata"]["labels"] |= labels
    (container,) = template["spec"]["containers"]
    host, _, port = (live.settings.serve_url or "").removeprefix("http://").partition(":")
    folders = {"/var/lib/falaj": str(live.settings.home.root), "/var/lib/serving": str(live.settings.home.root.parent / "replica")}
    arguments = [one for one in container["args"] if one.partition("=")[0] in KEPT]
    for there, here in folders.items():
        arguments = [one.replace(there, here) for one in arguments]
    container.update(image=IMAGE, args=[*arguments, f"--host={host}", f"--port={port}"], volumeMounts=[])
    container["lifecycle"] = None  # `sleep` is newer than this version
    template["spec"]["volumes"] = []
    path = f"/apis/apps/v1/namespaces/{tenant}/deployments"
    nodes.plane.api().post(path, made)
    yield NAME
    nodes.plane.api().delete(f"{path}/{NAME}")


def test_a_deployment_scaled_up_from_nothing_answers(
    rare: str, live: Server, nodes: Nodes, kubectl: Kubectl, capsys: pytest.CaptureFixture[str]
) -> None:
    def replica() -> Object | None:
        return next(iter(nodes.plane.api().items(pods(TENANT), labelSelector=f"app.kubernetes.io/name={rare}")), None)

    def answers() -> bool:
        with suppress(ServingError), live.client("predict") as client:
            return bool(client.predict(MODEL, [TINY_ROW]))
        return False

    def go() -> str:
        began, passed = time.monotonic(), []

        def note(what: str, reached: Callable[[], object]) -> None:
            while not reached():
                assert time.monotonic() - began < PATIENCE_SECONDS, what
                time.sleep(0.02)
            passed.append(f"{what} {time.monotonic() - began:.2f} s")

        kubectl("scale", "deployment", rare, f"--namespace={TENANT}", "--replicas=1")
        note("kubectl", lambda: True)
        note("pod", replica)
        note("node", lambda: (replica() or {"spec": {}})["spec"].get("nodeName"))
        note("process", lambda: (found := replica()) and nodes.running(found["metadata"]["name"]))
        note("first answer", answers)
        return ", ".join(passed)

    for _ in range(GOES):
        assert not answers()
        passed = go()
        with capsys.disabled():
            print(f"\n  from nothing: {passed}")
        kubectl("scale", "deployment", rare, f"--namespace={TENANT}", "--replicas=0")
        until(lambda: replica() is None, what="no replica")
