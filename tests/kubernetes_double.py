"""As much of Kubernetes as dagster-k8s asks for: jobs, pods and events over HTTP, and a kubelet that runs a pod's command as a local process.

Pods are forked from one process that has loaded dagster-k8s: importing it costs each pod eight CPU seconds otherwise. Time in pods is
compressed: an executor looks after its steps each second, not every twenty, and the client asks again after a
tenth of a second, not ten.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import signal
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from forking import fork_after
from kubernetes_streams import PodStreams

_PATH = re.compile(r"^/(?:api/v1|apis/batch/v1)/namespaces/([^/]+)/(jobs|pods|events)(?:/([^/]+))?(?:/(status|log))?$")
_UNAVAILABLE = {"kind": "Status", "status": "Failure", "reason": "ServiceUnavailable", "code": 503}
Object = dict[str, Any]
Fault = Callable[["Cluster", Object], bool]  # called when a pod runs; true where it ends with that


def hurry() -> None:
    """Let this process's client ask again after a tenth of a second, not ten."""
    from dagster_k8s import client

    for name in ("k8s_api_retry", "k8s_api_retry_creation_mutation"):
        retry = getattr(client, name)
        if not hasattr(retry, "hurried"):

            def hurried(asked: Any, *, max_retries: int, timeout: float, _retry: Any = retry) -> Any:
                return _retry(asked, max_retries=max_retries, timeout=timeout / 100)

            hurried.hurried = True  # type: ignore[attr-defined]
            setattr(client, name, hurried)


def run_command(arguments: list[str], environment: dict[str, str], log: str) -> None:
    """In the forked process: be the pod's one process."""
    os.environ.clear()
    os.environ.update(environment)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    from dagster._cli import create_dagster_cli
    from dagster._core.executor.step_delegating import StepDelegatingExecutor

    begin = StepDelegatingExecutor.__init__
    StepDelegatingExecutor.__init__ = lambda self, *args, **more: begin(self, *args, check_step_health_interval_seconds=1, **more)  # type: ignore[method-assign]
    hurry()
    if arguments[:2] == ["python", "-m"]:
        arguments = arguments[2:]
    assert arguments[0] == "dagster", arguments[:3]
    sys.argv = arguments
    create_dagster_cli()(arguments[1:])


def _container(container: Object, state: Object) -> Object:
    return {"name": container["name"], "ready": "running" in state, "restartCount": 0, "image": "", "imageID": "", "state": state}


class Cluster:
    """Objects by plural, namespace and name; `faults` are met by step pods in turn, `requests` are what was asked of the API."""

    def __init__(self, folder: Path, *, config_maps: dict[str, dict[str, str]]) -> None:
        self.objects: dict[tuple[str, str, str], Object] = {}
        self.faults: list[Fault] = []
        self.met = 0  # faults so far
        self.is_away, self.refused = False, 0  # a load balancer before no API server answers 503
        self.deaf = self.mute = 0  # so many new jobs are refused with 503, and then so many taken in and answered so
        self.unpullable: Callable[[Object], bool] = lambda _: False
        self.refuses: Callable[[Object], str | None] = lambda _: None  # admission's word on a new job
        self.streams = PodStreams()
        self.folder, self._config_maps, self._numbers = folder, config_maps, itertools.count(1)
        self._lock = threading.RLock()
        self._processes: dict[str, Any] = {}
        self._forks = fork_after(
            "dagster", "dagster._cli", "dagster_k8s", "numpy", "platform_assets.specs.catalogue", "resources.dagster_instance.k8s_launcher",
            "resources.dagster_instance.k8s_steps", "resources.dagster_instance.larger", "resources.admission", "resources.ledger",
        )  # fmt: skip
        cluster = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                cluster._answer(self, "GET")

            def do_POST(self) -> None:
                cluster._answer(self, "POST")

            def do_DELETE(self) -> None:
                cluster._answer(self, "DELETE")

            def log_message(self, *_: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self.streams.close()
        for process in self._processes.values():
            process.kill()
            process.join()
        self._server.shutdown()
        self._server.server_close()

    def of_kind(self, plural: str) -> list[Object]:
        with self._lock:
            return [one for (kind, _, _), one in self.objects.items() if kind == plural]

    def logs(self) -> str:
        return "\n".join(f"{file.name}: {file.read_text()[-3000:]}" for file in self.folder.glob("*.log"))

    # what a fault may do
    def kill(self, pod: Object, **terminated: Any) -> None:
        """End a pod's process as the kernel or the kubelet does."""
        process = self._processes[pod["metadata"]["name"]]
        process.kill()
        process.join()
        pod["status"].setdefault("told", {}).update(terminated)

    def evict(self, pod: Object, why: str) -> None:
        self.kill(pod)
        pod["status"].update(reason="Evicted", message=why)

    def lose(self, pod: Object) -> None:
        """The node is gone: nobody reports, and its controller deletes the pod after a while."""
        self.kill(pod)
        with self._lock:
            del self.objects["pods", pod["metadata"]["namespace"], pod["metadata"]["name"]]

    def lose_and_replace(self, pod: Object) -> None:
        """As before Kubernetes 1.26: the lost pod counts as neither good nor bad, and its job gets another."""
        pod["status"]["replaced"] = True
        self.lose(pod)

    def forget(self, job: Object) -> None:
        with self._lock:
            del self.objects["jobs", job["metadata"]["namespace"], job["metadata"]["name"]]

    def close_gate(self, name: str) -> Path:
        """Let steps that look at HOLD wait from now on; pods that start after `open_gate` do not."""
        gate = self.folder / f"gate-{name}"
        os.mkfifo(gate)
        self._config_maps["falaj-environment"]["HOLD"] = str(gate)
        return gate

    def open_gate(self) -> None:
        self._config_maps["falaj-environment"]["HOLD"] = ""

    # the API
    def _answer(self, handler: BaseHTTPRequestHandler, method: str) -> None:
        body = handler.rfile.read(int(handler.headers.get("content-length") or 0))
        if self.is_away or (method == "POST" and self.deaf):
            self.refused, self.deaf = self.refused + 1, max(0, self.deaf - 1)
            code, value = 503, _UNAVAILABLE
        elif (stream := self.streams.asked(handler.path)) is not None:
            stream(handler)
            return
        else:
            with self._lock:
                code, value = self._do(method, handler.path, json.loads(body) if body else {})
                if method == "POST" and self.mute:
                    self.mute, code, value = self.mute - 1, 503, _UNAVAILABLE
        text = value.encode() if isinstance(value, str) else json.dumps(value).encode()
        handler.send_response(code)
        handler.send_header("content-type", "text/plain" if isinstance(value, str) else "application/json")
        handler.send_header("content-length", str(len(text)))
        handler.end_headers()
        handler.wfile.write(text)

    def _do(self, method: str, target: str, body: Object) -> tuple[int, Any]:
        parts = urlsplit(target)
        match = _PATH.match(parts.path)
        assert match is not None, f"dagster-k8s asks for something new: {method} {target}"
        namespace, plural, name, part = match.groups()
        if method == "POST":
            return self._create(namespace, plural, body)
        if name is None:
            chosen = [one for (kind, space, _), one in self.objects.items() if (kind, space) == (plural, namespace)]
            selector = parse_qs(parts.query).get("labelSelector", [""])[0]
            wanted = dict(one.split("=", 1) for one in selector.replace("==", "=").split(",") if one)
            named = parse_qs(parts.query).get("fieldSelector", [""])[0].partition("metadata.name=")[2]
            chosen = [one for one in chosen if not named or one["metadata"]["name"] == named]
            found = [one for one in chosen if wanted.items() <= (one["metadata"].get("labels") or {}).items()]
            return 200, {"kind": "List", "metadata": {"resourceVersion": str(next(self._numbers))}, "items": found}
        one = self.objects.get((plural, namespace, name))
        if one is None:
            return 404, {"kind": "Status", "status": "Failure", "reason": "NotFound", "code": 404}
        if method == "DELETE":
            del self.objects[plural, namespace, name]
            for pod in [pod for pod in self.of_kind("pods") if pod["metadata"]["labels"].get("job-name") == name]:
                if (process := self._processes.get(pod["metadata"]["name"])) is not None:
                    process.terminate()
                else:
                    del self.objects["pods", namespace, pod["metadata"]["name"]]
            return 200, {"kind": "Status", "status": "Success"}
        if part == "log":
            return 200, (self.folder / f"{name}.log").read_text()
        return 200, one

    def _create(self, namespace: str, plural: str, body: Object) -> tuple[int, Any]:
        key = (plural, namespace, body["metadata"]["name"])
        if key in self.objects:
            return 409, {"kind": "Status", "status": "Failure", "reason": "AlreadyExists", "code": 409}
        if plural == "jobs" and (why := self.refuses(body)) is not None:
            return 422, {"kind": "Status", "status": "Failure", "reason": "Invalid", "message": why, "code": 422}
        body["metadata"].update(namespace=namespace, uid=f"u{next(self._numbers)}", resourceVersion=str(next(self._numbers)))
        body["status"] = {"active": 1}
        self.objects[key] = body
        if plural == "pods":
            self.streams.start(body)
        else:
            threading.Thread(target=self._run, args=(body,), daemon=True).start()
        return 201, body

    # job controller and kubelet in one
    def _run(self, job: Object) -> None:
        namespace, template = job["metadata"]["namespace"], job["spec"]["template"]
        name = f"{job['metadata']['name']}-{next(self._numbers)}"
        labels = {**template["metadata"].get("labels", {}), "job-name": job["metadata"]["name"]}
        now = datetime.now(UTC).isoformat(timespec="seconds")
        pod: Object = {
            "kind": "Pod", "apiVersion": "v1", "spec": template["spec"],
            "metadata": {"name": name, "namespace": namespace, "labels": labels, "uid": f"u{next(self._numbers)}", "creationTimestamp": now},
            "status": {"phase": "Running", "startTime": now},
        }  # fmt: skip
        (container,) = template["spec"]["containers"]
        if self.unpullable(pod):
            told = {"reason": "ImagePullBackOff", "message": f'Back-off pulling image "{container["image"]}"'}
            pod["status"] = {"phase": "Pending", "containerStatuses": [_container(container, {"waiting": told})]}
            self.objects["pods", namespace, name] = pod
            return
        process = self._process(pod, container)
        with self._lock:
            self.objects["pods", namespace, name] = pod
            self._processes[name] = process
            process.start()
        if labels.get("app.kubernetes.io/component") == "step_worker" and self.faults and self.faults[0](self, pod):
            self.faults.pop(0)
        process.join()
        if pod["status"].get("replaced"):
            self._run(job)
            return
        good = process.exitcode == 0
        with self._lock:
            told = pod["status"].pop("told", {})
            ended = {
                "exitCode": 137 if (process.exitcode or 0) < 0 else process.exitcode,
                "reason": "Completed" if good else "Error",
                **told,
            }
            pod["status"].update(
                phase="Succeeded" if good else "Failed",
                containerStatuses=[_container(container, {"terminated": ended})],
            )
            job["status"] = {"succeeded": 1} if good else {"failed": 1}

    def _process(self, pod: Object, container: Object) -> Any:
        """What is started, ended and joined as the container's one process; here a fork."""
        arguments = [*(container.get("command") or ()), *(container.get("args") or ())]
        log = self.folder / f"{pod['metadata']['name']}.log"
        return self._forks.Process(target=run_command, args=(arguments, self._environment(container, pod), str(log)), daemon=False)

    def _environment(self, container: Object, pod: Object) -> dict[str, str]:
        ours = {"PATH": os.environ["PATH"], "HOME": str(self.folder), "HOSTNAME": ""}
        return {**ours, **self._declared(container, pod), "DAGSTER_HOME": str(self.folder)}

    def _declared(self, container: Object, pod: Object) -> dict[str, str]:
        made: dict[str, str] = {}
        for source in container.get("envFrom") or ():
            reference = source.get("configMapRef") or source.get("secretRef")
            made |= self._config_maps[reference["name"]]
        for one in container.get("env") or ():
            field = ((one.get("valueFrom") or {}).get("fieldRef") or {}).get("fieldPath")
            made[one["name"]] = pod["metadata"][field.partition(".")[2]] if field else one.get("value") or ""
        return made
