"""Pods of the manifests, and those that dagster-k8s asks a double of the API for, in containers of podman: as their specifications say.

What a kubelet makes of a specification: user, read-only root, capabilities, limits, environment, claims, ConfigMaps, Secrets and empty folders.
What it does not: networks (every container has the machine's own), probes, accounts.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kubernetes_double import Cluster
from podman import USER, Podman

Object = dict[str, Any]


class Volumes:
    """Folders of the machine's that stand for a namespace's claims, ConfigMaps and Secrets, the group of the images' user on each."""

    def __init__(self, folder: Path, data: Mapping[str, Mapping[str, str]]) -> None:
        self.folder, self._data = folder, data

    def claim(self, name: str) -> Path:
        return self._handed(self.folder / "claims" / name, mode=0o2770)

    def of(self, volume: Object) -> Path:
        if "persistentVolumeClaim" in volume:
            return self.claim(volume["persistentVolumeClaim"]["claimName"])
        name = volume["configMap"]["name"] if "configMap" in volume else volume["secret"]["secretName"]
        folder = self._handed(self.folder / "data" / name, mode=0o750)
        for key, text in self._data[name].items():
            (folder / key).write_text(text)
            os.chown(folder / key, 0, USER)
            (folder / key).chmod(0o644 if "configMap" in volume else 0o440)
        return folder

    def within(self, volume: Object, below: str) -> Path:
        """A folder or file of a volume; in a claim a folder that is not there yet is made, root's and with the volume's own mode."""
        place = self.of(volume)
        for part in Path(below).parts:
            place = place / part if (place / part).exists() else self._handed(place / part, mode=0o2770)
        return place

    def empty(self, pod: str, name: str) -> Path:
        """A folder that the containers of one pod share: root's, as a kubelet makes it."""
        return self._handed(self.folder / "empty" / pod / name, mode=0o2777)

    def _handed(self, folder: Path, *, mode: int) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        os.chown(folder, 0, USER)  # as `fsGroup` does
        folder.chmod(mode)
        return folder


def confined(pod: str, spec: Object, container: Object, volumes: Volumes) -> list[str]:
    """Return what podman is told of a container of a pod, but for its environment, image and command."""
    whole, own, limits = spec["securityContext"], container["securityContext"], container["resources"]["limits"]
    assert whole["runAsNonRoot"]
    assert own["readOnlyRootFilesystem"]
    assert not own["allowPrivilegeEscalation"]
    said = [
        "--network=host", "--read-only", "--read-only-tmpfs=false", "--security-opt=no-new-privileges",
        f"--user={whole['runAsUser']}", f"--group-add={whole['fsGroup']}", *(f"--cap-drop={name}" for name in own["capabilities"]["drop"]),
        f"--memory={_bytes(limits['memory'])}", f"--cpus={_cores(limits['cpu'])}",
    ]  # fmt: skip
    there = {one["name"]: one for one in spec["volumes"]}
    for mount in container["volumeMounts"]:
        volume, at = there[mount["name"]], mount["mountPath"]
        if "emptyDir" in volume:
            said.append(f"--volume={volumes.empty(pod, volume['name'])}:{at}")
            continue
        below = mount.get("subPath", "") or mount.get("subPathExpr", "").replace("$(POD_NAME)", pod)
        source = volumes.within(volume, below)
        said.append(f"--volume={source}:{at}{':ro' if mount.get('readOnly') or 'persistentVolumeClaim' not in volume else ''}")
    return said


def _bytes(quantity: str) -> int:
    return int(quantity[:-2]) << {"Mi": 20, "Gi": 30}[quantity[-2:]]


def _cores(quantity: str) -> float:
    return int(quantity[:-1]) / 1000 if quantity.endswith("m") else float(quantity)


class _Process:
    """A container as the double's kubelet holds a process."""

    def __init__(self, podman: Podman, name: str, arguments: list[str], log: Path) -> None:
        self._podman, self._name, self._log = podman, name, log
        self._command = ["podman", "run", "--rm", f"--name={name}", *arguments]
        self._running: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._running = self._podman.start(self._command, log)

    def join(self) -> None:
        if self._running is not None:
            self._running.wait()

    @property
    def exitcode(self) -> int | None:
        return None if self._running is None else self._running.poll()

    def kill(self) -> None:
        self._podman.ask("podman", "rm", "--force", "--time=0", "--ignore", self._name)

    def terminate(self) -> None:
        self._podman.ask("podman", "kill", "--signal=TERM", self._name)


class PodmanCluster(Cluster):
    """The double, its pods in containers; `images` says what podman calls those that manifests name."""

    def __init__(self, folder: Path, podman: Podman, *, images: Mapping[str, str]) -> None:
        super().__init__(folder, config_maps={})
        self._podman, self._images = podman, images
        self.volumes = Volumes(folder, {})

    def hold(self, data: dict[str, dict[str, str]]) -> None:
        """Have these ConfigMaps and Secrets."""
        self._config_maps, self.volumes = data, Volumes(self.folder, data)

    def run(self, spec: Object, container: Object, name: str, *, pod: str, namespace: str) -> _Process:
        """Return a container of a pod, to be started."""
        environment = {
            **self._declared(container, {"metadata": {"name": pod, "namespace": namespace}}),
            "KUBERNETES_SERVICE_HOST": "127.0.0.1",
        }
        told = [f"--env={key}={value}" for key, value in environment.items()]
        command = [*(container.get("command") or ()), *(container.get("args") or ())]
        arguments = [*confined(pod, spec, container, self.volumes), *told, self._images[container["image"]], *command]
        return _Process(self._podman, name, arguments, self.folder / f"{name}.log")

    def _process(self, pod: Object, container: Object) -> _Process:
        name = pod["metadata"]["name"]
        return self.run(pod["spec"], container, name, pod=name, namespace=pod["metadata"]["namespace"])
