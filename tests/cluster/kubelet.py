"""A node with a kubelet of ours: it claims what a test says it has, and runs a pod's first container as a local process.

What it does as a real one: speaks to the API server as its own node and nobody else, reports that it lives, takes the pods that the scheduler
bound to it, hands each its settings, secrets and ServiceAccount, reports how it ended, gives a pod that is deleted its grace. What it
does not: containers, cgroups, users, probes, networks. It has a few images; any other it reports as not to be pulled.
"""

from __future__ import annotations

import base64
import contextlib
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import requests
from cluster.api import Api, Object, RefusedError
from cluster.pod_process import run_pod

LOOK_SECONDS, BEAT_SECONDS = 0.2, 1.0


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass
class Machine:
    """What nodes share on this one machine: claims' folders, images, and where the log server listens.

    `images` are those that there are, each with its own environment.
    """

    folder: Path
    forks: ForkServerContext
    address: tuple[str, int]
    images: dict[str, dict[str, str]]
    log_port: int = 0
    lock: threading.RLock = field(default_factory=threading.RLock)  # processes are started and looked at by one thread at a time

    def claim(self, namespace: str, name: str) -> Path:
        folder = self.folder / "claims" / namespace / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def log(self, namespace: str, pod: str) -> Path:
        return self.folder / "logs" / f"{namespace}.{pod}.log"


@dataclass
class _Running:
    pod: Object
    process: Any
    told: dict[str, Any] = field(default_factory=dict)  # how it ended, where a test ended it
    kill_at: float | None = None  # when its grace is over


class Kubelet:
    """One node, from when it is made until `close`."""

    def __init__(self, api: Api, name: str, machine: Machine, *, labels: Mapping[str, str], capacity: Mapping[str, str]) -> None:
        self.name, self._api, self._machine = name, api, machine
        self._running: dict[str, _Running] = {}
        self._lock = machine.lock
        self._over = threading.Event()
        self.faults: list[BaseException] = []  # what ended the loop: a test ends with it
        self._capacity = {"cpu": "16", "memory": "64Gi", "pods": "110", "ephemeral-storage": "100Gi", **capacity}
        named = {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"}
        self._api.post("/api/v1/nodes", {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": {**named, **labels}}})
        self._beat()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End every process, say nothing more."""
        self._over.set()
        self._thread.join()
        with self._lock:
            for one in self._running.values():
                one.process.kill()
                one.process.join()
            self._running.clear()

    def runs(self, pod: str) -> bool:
        """Whether a process of this pod (by name) is alive here."""
        with self._lock:
            return any(one.pod["metadata"]["name"] == pod and one.process.is_alive() for one in self._running.values())

    def evict(self, pod: str, why: str) -> None:
        """As a kubelet does whose node is short of memory: the process is killed, the pod stays, failed."""
        with self._lock:
            (one,) = [one for one in self._running.values() if one.pod["metadata"]["name"] == pod]
            one.told = {"reason": "Evicted", "message": why}
            one.process.kill()

    def _serve(self) -> None:
        beat = time.monotonic()
        while not self._over.wait(LOOK_SECONDS):
            try:
                if time.monotonic() - beat > BEAT_SECONDS:
                    beat = time.monotonic()
                    self._beat()
                self._look()
            except (requests.ConnectionError, requests.Timeout):
                continue  # the API server is away, or slow
            except (RefusedError, OSError, KeyError) as error:
                self.faults.append(error)
                return

    def _beat(self) -> None:
        ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "", "lastHeartbeatTime": _now()}
        told = {
            "capacity": self._capacity, "allocatable": self._capacity, "conditions": [ready],
            "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": self._machine.log_port}},
        }  # fmt: skip
        self._api.patch(f"/api/v1/nodes/{self.name}/status", {"status": told})

    def _look(self) -> None:
        bound = self._api.items("/api/v1/pods", fieldSelector=f"spec.nodeName={self.name}")
        with self._lock:
            for pod in bound:
                self._attend(pod)
            there = {pod["metadata"]["uid"] for pod in bound}
            for uid in set(self._running) - there:  # deleted at once, without grace
                one = self._running.pop(uid)
                one.process.kill()
                one.process.join()

    def _attend(self, pod: Object) -> None:
        uid, status = pod["metadata"]["uid"], pod["status"]
        one = self._running.get(uid)
        if one is not None:
            if pod["metadata"].get("deletionTimestamp"):
                self._wind_down(one, pod)
            if not one.process.is_alive():
                self._report(pod, _ended(pod, one))
                del self._running[uid]
            return
        if pod["metadata"].get("deletionTimestamp"):
            with contextlib.suppress(RefusedError):
                self._api.delete(_path(pod), grace_seconds=0)
        elif status["phase"] == "Pending":
            self._start(pod)

    def _start(self, pod: Object) -> None:
        container = pod["spec"]["containers"][0]
        image = self._machine.images.get(container["image"])
        if image is None:
            if not pod["status"].get("containerStatuses"):
                waits = {"reason": "ErrImagePull", "message": f"no such image: {container['image']}"}
                self._report(pod, {"phase": "Pending", "containerStatuses": [_container(container, {"waiting": waits})]})
            return
        metadata = pod["metadata"]
        root = self._machine.folder / "pods" / metadata["uid"]
        try:
            self._lay_out(pod, container, root)
            environment = {**image, **self._environment(pod, container, root)}
        except RefusedError as error:
            if error.code not in (403, 404):  # the authoriser has not seen the binding yet; or a volume is missing
                raise
            return
        log = self._machine.log(metadata["namespace"], metadata["name"])
        log.parent.mkdir(exist_ok=True)
        arguments = [*(container.get("command") or ()), *(container.get("args") or ())]
        process = self._machine.forks.Process(target=run_pod, args=(arguments, environment, str(log), str(root)), daemon=False)
        process.start()
        self._running[metadata["uid"]] = _Running(pod, process)
        began = {"running": {"startedAt": _now()}}
        self._report(pod, {"phase": "Running", "startTime": _now(), "containerStatuses": [_container(container, began, ready=True)]})

    def _lay_out(self, pod: Object, container: Object, root: Path) -> None:
        """Volumes as files and links below `root`: what a container's own file system would have."""
        volumes = {one["name"]: one for one in pod["spec"].get("volumes") or ()}
        namespace = pod["metadata"]["namespace"]
        for mount in container.get("volumeMounts") or ():
            volume, at = volumes[mount["name"]], root / mount["mountPath"].lstrip("/")
            at.parent.mkdir(parents=True, exist_ok=True)
            if "persistentVolumeClaim" in volume:
                if not at.is_symlink():
                    at.symlink_to(self._machine.claim(namespace, volume["persistentVolumeClaim"]["claimName"]))
                continue
            files = self._files(namespace, volume)
            if "subPath" in mount:
                at.write_bytes(files[mount["subPath"]])
                continue
            at.mkdir(exist_ok=True)
            for name, content in files.items():
                (at / name).touch(mode=0o600)
                (at / name).write_bytes(content)

    def _files(self, namespace: str, volume: Object) -> dict[str, bytes]:
        if "configMap" in volume:
            return {name: text.encode() for name, text in self._settings(namespace, "configmaps", volume["configMap"]["name"]).items()}
        if "secret" in volume:
            return {name: text.encode() for name, text in self._settings(namespace, "secrets", volume["secret"]["secretName"]).items()}
        return {}

    def _settings(self, namespace: str, plural: str, name: str) -> dict[str, str]:
        data = self._api.get(f"/api/v1/namespaces/{namespace}/{plural}/{name}").get("data") or {}
        return {key: base64.b64decode(value).decode() for key, value in data.items()} if plural == "secrets" else data

    def _environment(self, pod: Object, container: Object, root: Path) -> dict[str, str]:
        metadata = pod["metadata"]
        host, port = self._machine.address
        made = {"HOSTNAME": metadata["name"], "KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": str(port)}
        for source in container.get("envFrom") or ():
            plural, reference = ("configmaps", source["configMapRef"]) if "configMapRef" in source else ("secrets", source["secretRef"])
            made |= self._settings(metadata["namespace"], plural, reference["name"])
        for one in container.get("env") or ():
            entry = ((one.get("valueFrom") or {}).get("fieldRef") or {}).get("fieldPath")
            made[one["name"]] = metadata[entry.removeprefix("metadata.")] if entry else one.get("value") or ""
        return {
            name: str(root / value[1:]) if value.startswith("/") and (root / value[1:]).exists() else value for name, value in made.items()
        }

    def _wind_down(self, one: _Running, pod: Object) -> None:
        if one.kill_at is None:
            one.kill_at = time.monotonic() + pod["metadata"].get("deletionGracePeriodSeconds", 30)
            one.process.terminate()
        elif time.monotonic() > one.kill_at:
            one.process.kill()
            one.process.join()

    def _report(self, pod: Object, status: Object) -> None:
        with contextlib.suppress(RefusedError):  # it may be gone by now
            self._api.patch(f"{_path(pod)}/status", {"metadata": {"uid": pod["metadata"]["uid"]}, "status": status})


def _path(pod: Object) -> str:
    return f"/api/v1/namespaces/{pod['metadata']['namespace']}/pods/{pod['metadata']['name']}"


def _container(container: Object, state: Object, *, ready: bool = False) -> Object:
    told = {"name": container["name"], "image": container["image"], "imageID": "", "restartCount": 0}
    return {**told, "ready": ready, "state": state}


def _ended(pod: Object, one: _Running) -> Object:
    one.process.join()
    code = one.process.exitcode
    good = code == 0
    ended = {"exitCode": 128 - code if code < 0 else code, "reason": "Completed" if good else "Error", "finishedAt": _now()}
    (container,) = pod["spec"]["containers"]
    status = {"phase": "Succeeded" if good else "Failed", "containerStatuses": [_container(container, {"terminated": ended})]}
    return {**status, **one.told}
