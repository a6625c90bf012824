"""What the serving benchmarks measure and how: the MLP 64-256-256-2 as a release, servers as processes, the CPU of all their processes."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from platform_assets.errors import FalajError
from platform_assets.main_job.bench.serving_anchors import open_session
from platform_assets.main_job.bench.serving_load import encode_request
from platform_assets.manifests import MANIFEST_FILE, list_files, read_release
from platform_assets.specs.record_json import to_json
from platform_assets.specs.records import Feature, FeatureSchema
from resources.keys import LaptopKeys, ModelSigner
from resources.releases import SealedReleases
from resources.serving import LocalServing, PredictClient, find_server, server_command
from resources.settings import Home, Settings, child_environment
from resources.tokens import mint

MODEL = "mlp"
WIDTH, HIDDEN, CLASSES = 64, 256, ("0", "1")
_LOG_SECONDS = 0.8  # the log is written within half a second of the answer: its CPU belongs to the requests
_UP_SECONDS = 60.0
NAMES = tuple(f"f{at:02d}" for at in range(WIDTH))


@dataclass
class Releases:
    """The releases of a home, signed and encrypted."""

    home: Home

    @property
    def store(self) -> SealedReleases:
        """The release store of this home."""
        return SealedReleases(self.home.releases, keys=LaptopKeys(self.home.keys), signer=ModelSigner(self.home.keys))

    def make(self, seed: int, **how: Any) -> str:
        """Write the release of a seed; return its digest."""
        with tempfile.TemporaryDirectory() as beside:
            folder = Path(beside) / "release"
            write_release(folder, seed=seed, **how)
            return self.store.put(folder)


def write_release(folder: Path, *, seed: int, hidden: int = HIDDEN, model: str = MODEL) -> str:
    """Write a whole release of the MLP with recorded answers; return its digest."""
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(_graph(seed, hidden))
    features = tuple(Feature(name, "numeric", "bench", "row_id") for name in NAMES)
    (folder / "schema.json").write_text(to_json(FeatureSchema(features, "label", CLASSES, "row_id", "at")))
    values = np.random.default_rng(seed).normal(size=(16, WIDTH)).astype(np.float32)
    answers = open_session(str(folder / "model.onnx")).run(None, {"numeric": values})[0]
    rows = [dict(zip(NAMES, row, strict=True)) for row in values.tolist()]
    (folder / "samples.json").write_text(json.dumps({"rows": rows, "probabilities": answers.tolist()}))
    (folder / MANIFEST_FILE).write_text(json.dumps({"model": model, "files": list_files(folder)}))
    return read_release(folder).digest


def _graph(seed: int, hidden: int) -> bytes:
    from onnx import TensorProto, helper, numpy_helper

    random = np.random.default_rng(seed)
    sizes = (WIDTH, hidden, hidden, len(CLASSES))
    nodes, weights, last = [], [], "numeric"
    for at, (inner, outer) in enumerate(pairwise(sizes)):
        weights.append(numpy_helper.from_array(random.normal(scale=inner**-0.5, size=(inner, outer)).astype(np.float32), f"w{at}"))
        weights.append(numpy_helper.from_array(np.zeros(outer, dtype=np.float32), f"b{at}"))
        nodes.append(helper.make_node("Gemm", [last, f"w{at}", f"b{at}"], [f"h{at}"]))
        last = f"h{at}"
        if at < len(sizes) - 2:
            nodes.append(helper.make_node("Relu", [last], [f"r{at}"]))
            last = f"r{at}"
    nodes.append(helper.make_node("Softmax", [last], ["probabilities"], axis=1))
    graph = helper.make_graph(
        nodes, MODEL,
        [helper.make_tensor_value_info("numeric", TensorProto.FLOAT, ["n", WIDTH])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", len(CLASSES)])],
        weights,
    )  # fmt: skip
    content: bytes = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString()
    return content


def values(seed: int, rows: int) -> np.ndarray:
    """Rows of numbers to ask for."""
    return np.random.default_rng(seed).normal(size=(rows, WIDTH)).astype(np.float32)


def json_requests(rows: int, *, path: str = f"/v2/models/{MODEL}/infer", token: str = "", count: int = 16) -> list[bytes]:
    """Open Inference Protocol requests with JSON tensors, each with other numbers."""
    found = []
    for seed in range(count):
        tensor = {"name": "numeric", "datatype": "FP32", "shape": [rows, WIDTH], "data": values(seed, rows).round(4).ravel().tolist()}
        found.append(encode_request(path, json.dumps({"inputs": [tensor]}, separators=(",", ":")).encode(), token=token))
    return found


def column_requests(rows: int, *, token: str = "", count: int = 16) -> list[bytes]:
    """`:predict` requests with named columns, row by row."""
    found = []
    for seed in range(count):
        named = [dict(zip(NAMES, row, strict=True)) for row in values(seed, rows).round(4).tolist()]
        found.append(encode_request(f"/v1/models/{MODEL}:predict", json.dumps({"rows": named}).encode(), token=token))
    return found


def raw_requests(rows: int, *, count: int = 16) -> list[bytes]:
    """Bare floats, for the anchors."""
    return [encode_request("/", values(seed, rows).tobytes(), kind="application/octet-stream") for seed in range(count)]


@dataclass
class Contestant:
    """A running server, its processes and how it is asked."""

    process: subprocess.Popen[Any]
    host: str
    port: int

    def cpu_seconds(self) -> float:
        """User and system time of all its processes so far, ended children included."""
        import psutil

        root = psutil.Process(self.process.pid)
        spent = 0.0
        for process in [root, *root.children(recursive=True)]:
            try:
                times = process.cpu_times()
            except psutil.NoSuchProcess:
                continue
            spent += times.user + times.system + times.children_user + times.children_system
        return spent

    def resident_bytes(self) -> int:
        """Resident memory of its first process, shared pages included."""
        import psutil

        return int(psutil.Process(self.process.pid).memory_info().rss)

    def own_bytes(self) -> int:
        """Resident memory of all its processes that stands for no file: what other programs share or stop sharing does not move it."""
        import psutil

        root, total = psutil.Process(self.process.pid), 0
        for process in [root, *root.children(recursive=True)]:
            for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
                if line.startswith(("RssAnon:", "RssShmem:")):
                    total += int(line.split()[1]) * 1024
        return total


@dataclass
class Falaj(Contestant):
    """The real server, with validation, figures, log and tokens on."""

    settings: Settings
    releases: Releases

    @property
    def target(self) -> LocalServing:
        """Its admin side."""
        return LocalServing(self.settings, self.releases.store)

    def token(self) -> str:
        """A caller's token."""
        return mint(self.settings.home.keys, scopes=("predict",))

    def admin(self) -> PredictClient:
        """A client that may look and change."""
        return PredictClient(f"http://{self.host}:{self.port}", token=mint(self.settings.home.keys, scopes=("admin",)))


@contextmanager
def running_falaj(folder: Path, *extra: str, mtls: str = "off") -> Iterator[Falaj]:
    """Run the real server in a home of its own, with one release live."""
    home = Home(folder / "home")
    home.root.mkdir(parents=True)
    settings = Settings(home=home, environment="laptop", defs_root=folder, webhook_url=None, serve_port=0, web_port=0, mtls=mtls)
    process = subprocess.Popen([*server_command(settings, port=0), *extra], env=child_environment(settings))
    try:
        until = time.monotonic() + _UP_SECONDS
        while (found := find_server(home)) is None:
            if process.poll() is not None or time.monotonic() > until:
                raise FalajError("bench serving: the server did not start; see its output above")
            time.sleep(0.01)
        parts = urlsplit(found.url)
        server = Falaj(process, str(parts.hostname), int(parts.port or 0), settings, Releases(settings.home))
        digest = server.releases.make(1)
        server.target.load(MODEL, digest)
        server.target.set_traffic(MODEL, live=digest)
        yield server
    finally:
        _end(process)


@contextmanager
def running_anchor(kind: str, model: Path) -> Iterator[Contestant]:
    """Run one of the anchors."""
    command = [sys.executable, "-m", "platform_assets.main_job.bench.serving_anchors", kind, str(model)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise FalajError(f"bench serving: the anchor {kind!r} did not start; see its output above")
        yield Contestant(process, "127.0.0.1", int(line))
    finally:
        _end(process)


def _end(process: subprocess.Popen[Any]) -> None:
    process.terminate()
    try:
        process.wait(timeout=20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def ask(
    server: Contestant, requests: list[bytes], *, connections: int, seconds: float, rate: float = 0.0, version_field: str = ""
) -> dict[str, Any]:
    """Load a server from a process of its own; return the generator's figures, with `cpu_us` of the server a request."""
    order = {
        "host": server.host, "port": server.port, "connections": connections, "seconds": seconds, "rate": rate,
        "requests": [request.hex() for request in requests], "version_field": version_field,
    }  # fmt: skip
    before = server.cpu_seconds()
    found = finish_load(start_load(order))
    time.sleep(_LOG_SECONDS)
    spent = server.cpu_seconds() - before
    return {**found, "cpu_us": 1e6 * spent / max(1, found["requests"])}


def start_load(order: dict[str, Any]) -> subprocess.Popen[str]:
    """Start the generator; its figures come by `finish_load`."""
    command = [sys.executable, "-m", "platform_assets.main_job.bench.serving_load"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    process.stdin.write(json.dumps(order))
    process.stdin.close()
    return process


def finish_load(process: subprocess.Popen[str]) -> dict[str, Any]:
    """Wait for the generator; return its figures."""
    assert process.stdout is not None
    line = process.stdout.read()
    if process.wait() != 0 or not line:
        raise FalajError(f"bench serving: the load generator ended with {process.returncode}; see its output above")
    found: dict[str, Any] = json.loads(line)
    return found


def binary_requests(rows: int, *, token: str = "", count: int = 16) -> list[bytes]:
    """Open Inference Protocol requests with binary tensors both ways."""
    found = []
    for seed in range(count):
        blob = values(seed, rows).tobytes()
        tensor = {"name": "numeric", "datatype": "FP32", "shape": [rows, WIDTH], "parameters": {"binary_data_size": len(blob)}}
        outputs = [{"name": "probabilities", "parameters": {"binary_data": True}}]
        head = json.dumps({"inputs": [tensor], "outputs": outputs}, separators=(",", ":")).encode()
        extra = f"inference-header-content-length: {len(head)}\r\n"
        path = f"/v2/models/{MODEL}/infer"
        found.append(encode_request(path, head + blob, token=token, kind="application/octet-stream", extra=extra))
    return found
