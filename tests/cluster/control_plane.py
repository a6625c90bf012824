"""A real control plane on loopback: etcd, API server, controller manager and scheduler, as `build_control_plane.sh` made them."""

from __future__ import annotations

import base64
import ctypes
import os
import secrets
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import requests
from cluster.api import Api, RefusedError
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from throw_away_ca import Authority

VERSION = "1.20.2"
PATIENCE_SECONDS = 300
LOST_SECONDS = 10  # a node that says nothing for so long is lost; pods are taken off it after as long again. In a cluster: 40 and 300


def find_programs() -> Path | None:
    """The folder that the build left, where it did."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    found = cache / "falaj" / f"kubernetes-{VERSION}"
    return found if found.is_dir() else None


def until(ready: Callable[[], object], *, what: str, seconds: float = PATIENCE_SECONDS) -> None:
    """Wait until it holds; AssertionError with what was waited for."""
    deadline = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < deadline, f"{what}: not within {seconds:.0f} s"
        time.sleep(0.1)


@dataclass(frozen=True)
class ControlPlane:
    """`folder` has its logs; `users` are the tokens of who may ask, by name."""

    url: str
    authority: Authority
    folder: Path
    users: dict[str, str]

    def api(self, user: str = "admin") -> Api:
        return Api(self.url, self.authority.certificate, self.users[user])

    @property
    def address(self) -> tuple[str, int]:
        host, _, port = self.url.removeprefix("https://").partition(":")
        return host, int(port)

    def account(self, namespace: str, name: str) -> Api:
        """The API as a ServiceAccount asks it, with the token that its pods are given."""
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{name}"
        until(lambda: self.api().get(path).get("secrets"), what=f"a token of {namespace}/{name}")
        (secret,) = self.api().get(path)["secrets"]
        token = self.api().get(f"/api/v1/namespaces/{namespace}/secrets/{secret['name']}")["data"]["token"]
        return Api(self.url, self.authority.certificate, base64.b64decode(token).decode())


@contextmanager
def run_control_plane(programs: Path, folder: Path, *, nodes: Sequence[str]) -> Iterator[ControlPlane]:
    """Start one, empty; yield it when it answers. `nodes` get users of their own, as kubelets have."""
    authority = Authority(folder / "pki")
    served = authority.issue("kube-apiserver", host="127.0.0.1")
    signing, public = _key_pair(folder / "pki")
    ports = _free_ports(3)
    url = f"https://127.0.0.1:{ports[2]}"
    groups = {"admin": "system:masters", "system:kube-controller-manager": "", "system:kube-scheduler": ""}
    groups |= {f"system:node:{name}": "system:nodes" for name in nodes}
    users = {name: secrets.token_hex(16) for name in groups}
    table = folder / "pki" / "tokens.csv"
    table.touch(mode=0o600)
    table.write_text("".join(f'{users[name]},{name},{name},"{group}"\n' for name, group in groups.items()))
    plane = ControlPlane(url, authority, folder, users)
    processes: list[subprocess.Popen] = []

    def start(program: str, *arguments: str) -> None:
        with (folder / f"{program}.log").open("wb") as log:
            processes.append(
                subprocess.Popen(
                    [programs / program, *arguments],
                    stdout=log,
                    stderr=log,
                    cwd=folder,
                    preexec_fn=_end_with_parent,  # noqa: PLW1509 - no lock is taken there
                )
            )

    try:
        store, peer = f"http://127.0.0.1:{ports[0]}", f"http://127.0.0.1:{ports[1]}"
        start(
            "etcd", f"--data-dir={folder / 'etcd'}", f"--listen-client-urls={store}", f"--advertise-client-urls={store}",
            f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}", f"--initial-cluster=default={peer}",
        )  # fmt: skip
        start(
            "kube-apiserver", f"--etcd-servers={store}", "--bind-address=127.0.0.1", "--advertise-address=127.0.0.1",
            f"--secure-port={ports[2]}", "--endpoint-reconciler-type=none", "--service-cluster-ip-range=10.0.0.0/24",
            f"--tls-cert-file={served[0]}", f"--tls-private-key-file={served[1]}", f"--token-auth-file={table}",
            "--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction", "--anonymous-auth=false",
            f"--service-account-key-file={public}", f"--service-account-signing-key-file={signing}",
            "--service-account-issuer=https://kubernetes.default.svc", "--kubelet-preferred-address-types=InternalIP",
            f"--default-unreachable-toleration-seconds={LOST_SECONDS}", f"--default-not-ready-toleration-seconds={LOST_SECONDS}",
        )  # fmt: skip
        _wait(plane, processes)
        config = {
            name: plane.api(f"system:{name}").write_kubeconfig(folder / f"{name}.yaml")
            for name in ("kube-controller-manager", "kube-scheduler")
        }
        start(
            "kube-controller-manager", f"--kubeconfig={config['kube-controller-manager']}", "--use-service-account-credentials",
            f"--service-account-private-key-file={signing}", f"--root-ca-file={authority.certificate}", "--leader-elect=false",
            "--port=0", "--secure-port=0", "--node-monitor-period=2s", f"--node-monitor-grace-period={LOST_SECONDS}s",
        )  # fmt: skip
        start("kube-scheduler", f"--kubeconfig={config['kube-scheduler']}", "--leader-elect=false", "--port=0", "--secure-port=0")
        until(lambda: _has_default_account(plane, processes), what="a default account, which the controller manager makes")
        yield plane
    finally:
        for process in reversed(processes):
            process.terminate()
        for process in reversed(processes):
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _end_with_parent() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def _free_ports(count: int) -> list[int]:
    held = [socket.socket() for _ in range(count)]
    try:
        for one in held:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in held]
    finally:
        for one in held:
            one.close()


def _key_pair(folder: Path) -> tuple[Path, Path]:
    """What tokens of ServiceAccounts are signed with, and checked with."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    signing, public = folder / "accounts.key", folder / "accounts.pub"
    signing.touch(mode=0o600)
    signing.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()))
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return signing, public


def _still_run(plane: ControlPlane, processes: list[subprocess.Popen]) -> None:
    for process in processes:
        if process.poll() is not None:
            name = Path(process.args[0]).name
            raise AssertionError(f"{name} ended with {process.returncode}: {(plane.folder / f'{name}.log').read_text()[-3000:]}")


def _wait(plane: ControlPlane, processes: list[subprocess.Popen]) -> None:
    def ready() -> bool:
        _still_run(plane, processes)
        try:
            return plane.api().get("/readyz") == "ok"
        except (requests.ConnectionError, requests.Timeout, RefusedError):
            return False

    until(ready, what="the API server")


def _has_default_account(plane: ControlPlane, processes: list[subprocess.Popen]) -> bool:
    _still_run(plane, processes)
    try:
        return bool(plane.api().get("/api/v1/namespaces/default/serviceaccounts/default").get("secrets"))
    except RefusedError:
        return False
