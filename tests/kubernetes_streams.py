"""Pods that Pipes makes on the Kubernetes double: a process whose lines are stamped as a kubelet does, and a log that is cut, or ends, while it is followed."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from typing import Any

_LOG = re.compile(r"/pods/([^/]+)/log\?(?=.*follow=[Tt]rue)")
Object = dict[str, Any]


class PodStreams:
    """Processes and stamped lines by pod; `cuts` says after how many lines each connection breaks, the first first, `ends` after how many it ends."""

    def __init__(self) -> None:
        self.cuts: list[int] = []
        self.ends: list[int] = []
        self.connections = 0
        self._lines: dict[str, list[str]] = {}
        self._ended: dict[str, bool] = {}
        self._processes: list[subprocess.Popen[str]] = []
        self._news = threading.Condition()

    def close(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait()

    def start(self, pod: Object) -> None:
        """Run the pod's command, and report how it goes."""
        (container,) = pod["spec"]["containers"]
        environment = {one["name"]: one["value"] for one in container["env"]}
        command = [sys.executable, *container["command"][1:]]
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self._processes.append(process)
        self._report(pod, container, {"running": {}}, phase="Running")
        name = pod["metadata"]["name"]
        self._lines[name], self._ended[name] = [], False
        threading.Thread(target=self._follow, args=(pod, container, process), daemon=True).start()

    def _follow(self, pod: Object, container: Object, process: subprocess.Popen[str]) -> None:
        name = pod["metadata"]["name"]
        assert process.stdout is not None
        for line in process.stdout:
            now = time.time_ns()
            stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now // 10**9)) + f".{now % 10**9:09d}Z"
            with self._news:
                self._lines[name].append(f"{stamp} {line}")
                self._news.notify_all()
        code = process.wait()
        self._report(pod, container, {"terminated": {"exitCode": code, "reason": "Error" if code else "Completed"}}, phase="Succeeded")
        with self._news:
            self._ended[name] = True
            self._news.notify_all()

    def _report(self, pod: Object, container: Object, state: Object, *, phase: str) -> None:
        told = {"name": container["name"], "ready": "running" in state, "restartCount": 0, "image": "", "imageID": "", "state": state}
        pod["status"] = {"phase": phase, "containerStatuses": [told]}

    def asked(self, target: str) -> Callable[[BaseHTTPRequestHandler], None] | None:
        """Return what answers a request for a log that is followed; None for any other."""
        found = _LOG.search(target)
        return (lambda handler: self._stream(handler, found[1])) if found and found[1] in self._lines else None

    def _stream(self, handler: BaseHTTPRequestHandler, name: str) -> None:
        self.connections += 1
        breaks = bool(self.cuts)
        left = self.cuts.pop(0) if self.cuts else self.ends.pop(0) if self.ends else None
        handler.wfile.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n")
        sent = 0
        while True:
            with self._news:
                while len(self._lines[name]) <= sent and not self._ended[name]:
                    self._news.wait()
                lines = self._lines[name][sent:]
                ended = self._ended[name] and not lines
            if ended:
                handler.wfile.write(b"0\r\n\r\n")
                return
            for line in lines:
                if left is not None and sent >= left:
                    # A chunk that says it is longer: the connection broke. Or the last one: an API server whose time for a request is over.
                    handler.wfile.write(b"40\r\nhalf a li" if breaks else b"0\r\n\r\n")
                    handler.wfile.flush()
                    return
                handler.wfile.write(f"{len(line.encode()):x}\r\n{line}\r\n".encode())
                sent += 1
            handler.wfile.flush()
