"""Open Inference Protocol over gRPC, asked by grpcio's own client on a real server."""

from __future__ import annotations

import json
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
from serving_process import MODEL, Server

from platform_assets.stages.serving.grpc_messages import SERVICE, messages
from platform_assets.stages.serving.v2 import write_texts
from resources.testing.serving import TINY_ROW


class Client:
    def __init__(self, address: str) -> None:
        self.channel = grpc.insecure_channel(address)

    def __call__(self, method: str, token: str | None = None, timeout: float = 10, **fields: object):
        made = messages()
        call = self.channel.unary_unary(
            f"/{SERVICE}/{method}", request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=made[f"{method}Response"].FromString,
        )  # fmt: skip
        metadata = [("authorization", f"Bearer {token}")] if token else []
        return call(made[f"{method}Request"](**fields), metadata=metadata, timeout=timeout)


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Client]]:
    server = Server(tmp_path_factory.mktemp("grpc"))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server.start("--grpc-port", str(port))
    server.deploy()
    client = Client(f"127.0.0.1:{port}")
    yield server, client
    client.channel.close()
    assert server.kill(signal.SIGTERM) == ""


def inputs(rows: int = 1, **numeric: object) -> list[dict]:
    return [
        {"name": "numeric", "datatype": "FP32", "shape": [rows, 4], **numeric},
        {"name": "categorical", "datatype": "BYTES", "shape": [rows, 1]},
    ]


NUMBERS = np.array([[30, 80.5, 16983, 90.0]], dtype=np.float32)
RAW = [NUMBERS.tobytes(), write_texts(["Online TA"])]


def test_health_and_metadata(serving):
    _, ask = serving
    assert ask("ServerLive").live
    assert ask("ServerReady").ready
    assert ask("ModelReady", name=MODEL).ready
    assert ask("ServerMetadata").name == "falaj"
    described = ask("ModelMetadata", name=MODEL)
    assert [(one.name, one.datatype, list(one.shape)) for one in described.inputs] == [
        ("numeric", "FP32", [-1, 4]),
        ("categorical", "BYTES", [-1, 1]),
    ]


def test_raw_and_typed_tensors_are_answered_as_named_columns_are_and_logged(serving):
    server, ask = serving
    with server.client() as client:
        named = list(client.predict(MODEL, [TINY_ROW])["predictions"][0]["probabilities"].values())
    raw = ask("ModelInfer", model_name=MODEL, id="mine", inputs=inputs(), raw_input_contents=RAW)
    typed = inputs(contents={"fp32_contents": NUMBERS.ravel().tolist()})
    typed[1]["contents"] = {"bytes_contents": [b"Online TA"]}
    by_type = ask("ModelInfer", model_name=MODEL, inputs=typed, outputs=[{"name": "probabilities"}])
    for reply in (raw, by_type):
        assert np.frombuffer(reply.raw_output_contents[0], dtype=np.float32) == pytest.approx(named, abs=1e-6)
    assert (raw.id, [output.name for output in raw.outputs], len(by_type.outputs)) == ("mine", ["probabilities", "label"], 1)
    lines = [json.loads(line) for file in server.target.rotate_log(MODEL) for line in Path(file).read_text().splitlines()]
    assert len(lines) == 3
    assert [line["inputs"]["lead_time"] for line in lines] == [30, 30, 30]


@pytest.mark.parametrize(
    ("fields", "code", "said"),
    [
        ({"model_name": "nobody"}, grpc.StatusCode.NOT_FOUND, "no model 'nobody'"),
        ({"model_name": MODEL, "inputs": inputs(2), "raw_input_contents": RAW}, grpc.StatusCode.INVALID_ARGUMENT, "ask for 32"),
        ({"model_name": MODEL, "inputs": inputs(), "raw_input_contents": RAW[:1]}, grpc.StatusCode.INVALID_ARGUMENT, "one each"),
        (
            {"model_name": MODEL, "inputs": inputs(), "raw_input_contents": RAW, "outputs": [{"name": "x"}]},
            grpc.StatusCode.INVALID_ARGUMENT,
            "'x'",
        ),
        ({"model_name": MODEL, "model_version": "abc"}, grpc.StatusCode.NOT_FOUND, "not in service"),
    ],
)
def test_a_wrong_call_has_its_status_and_a_sentence(serving, fields, code, said):
    _, ask = serving
    with pytest.raises(grpc.RpcError, match=said) as caught:
        ask("ModelInfer", **fields)
    assert caught.value.code() is code


def test_rights_are_those_of_rest(serving):
    server, ask = serving
    request = {"model_name": MODEL, "inputs": inputs(), "raw_input_contents": RAW}
    assert ask("ModelInfer", token=server.token(f"predict:{MODEL}"), **request).model_name == MODEL
    for token, code in ((server.token("admin"), grpc.StatusCode.PERMISSION_DENIED), ("a.b.c", grpc.StatusCode.UNAUTHENTICATED)):
        with pytest.raises(grpc.RpcError) as caught:
            ask("ModelInfer", token=token, **request)
        assert caught.value.code() is code
