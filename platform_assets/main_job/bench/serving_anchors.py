"""The practical limit in Python: HTTP written by hand on asyncio, onnxruntime, and nothing else: no validation, rights, figures or log.

Run as a program it is one contestant: `single|coalescing MODEL`; it prints its port and serves until it is ended.
`single` runs each request by itself. `coalescing` runs those of one turn of the loop together. A body of raw floats is answered with
raw floats; anything else is Open Inference Protocol JSON with one tensor.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime as ort
import orjson
import uvloop

_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
_RAW_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/octet-stream\r\ncontent-length: %d\r\n\r\n"


def open_session(model: str) -> Any:
    """Return a session as the server opens it: one thread, no spinning."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return ort.InferenceSession(model, sess_options=options, providers=["CPUExecutionProvider"])


class _Runner:
    """Answers requests at once, or all of a turn together."""

    def __init__(self, session: Any, width: int, loop: asyncio.AbstractEventLoop) -> None:
        self._session, self.width, self._loop = session, width, loop
        self._waiting: list[tuple[np.ndarray, Callable[[np.ndarray], None]]] = []

    def run(self, rows: np.ndarray, done: Callable[[np.ndarray], None]) -> None:
        done(self._session.run(None, {"numeric": rows})[0])

    def gather(self, rows: np.ndarray, done: Callable[[np.ndarray], None]) -> None:
        if not self._waiting:
            self._loop.call_soon(self._flush)
        self._waiting.append((rows, done))

    def _flush(self) -> None:
        waiting, self._waiting = self._waiting, []
        found = self._session.run(None, {"numeric": np.concatenate([rows for rows, _ in waiting])})[0]
        start = 0
        for rows, done in waiting:
            done(found[start : start + len(rows)])
            start += len(rows)


class _Protocol(asyncio.Protocol):
    def __init__(self, width: int, submit: Callable[[np.ndarray, Callable[[np.ndarray], None]], None]) -> None:
        self._width, self._submit, self._data = width, submit, b""

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        data = self._data + data if self._data else data
        while (end := data.find(b"\r\n\r\n")) >= 0:
            at = data.index(b"content-length: ", 0, end) + 16
            line = data.find(b"\r\n", at)
            stop = end + 4 + int(data[at:line])
            if len(data) < stop:
                break
            self._answer(data[end + 4 : stop], raw=b"octet-stream" in data[:end])
            data = data[stop:]
        self._data = data

    def _answer(self, body: bytes, *, raw: bool) -> None:
        if raw:
            rows = np.frombuffer(body, dtype=np.float32).reshape(-1, self._width)
        else:
            rows = np.array(orjson.loads(body)["inputs"][0]["data"], dtype=np.float32).reshape(-1, self._width)
        self._submit(rows, self._raw if raw else self._json)

    def _raw(self, found: np.ndarray) -> None:
        body = found.tobytes()
        self._transport.write(_RAW_HEAD % len(body) + body)

    def _json(self, found: np.ndarray) -> None:
        output = {"name": "probabilities", "datatype": "FP32", "shape": list(found.shape), "data": found.ravel().tolist()}
        body = orjson.dumps({"model_name": "mlp", "outputs": [output]})
        self._transport.write(_HEAD % len(body) + body)


async def _serve(kind: str, model: str) -> None:
    loop = asyncio.get_running_loop()
    session = open_session(model)
    runner = _Runner(session, session.get_inputs()[0].shape[1], loop)
    submit = runner.run if kind == "single" else runner.gather
    server = await loop.create_server(lambda: _Protocol(runner.width, submit), "127.0.0.1", 0, backlog=1024)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


def main(arguments: list[str]) -> None:
    """Serve until ended."""
    kind, model = arguments
    uvloop.run(_serve(kind, model))


if __name__ == "__main__":
    main(sys.argv[1:])
