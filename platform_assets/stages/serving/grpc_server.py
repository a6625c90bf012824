"""Open Inference Protocol V2 over gRPC, beside REST in the same process: the same rights, batches, figures and log.

grpcio is imported when a port for it is given, and only then.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from ipaddress import ip_address
from time import perf_counter
from typing import TYPE_CHECKING, Any

from platform_assets.errors import AccessError, RequestError, ServingError
from platform_assets.stages.serving import v2
from platform_assets.stages.serving.access import PREDICT, ScopeError
from platform_assets.stages.serving.columns import Encoded
from platform_assets.stages.serving.grpc_messages import METHODS, SERVICE, messages
from platform_assets.stages.serving.http import MAX_BODY_BYTES
from platform_assets.stages.serving.predicting import DEADLINE_SECONDS
from platform_assets.stages.serving.replies import SERVER_VERSION, UnforeseenError
from platform_assets.stages.serving.tls import TlsFiles, load_pair
from platform_assets.stages.serving.traffic import NotFoundError

if TYPE_CHECKING:
    import numpy as np

    from platform_assets.stages.serving.app import App
    from platform_assets.stages.serving.bundle import Bundle
    from platform_assets.stages.serving.traffic import Arm

_CONTENTS = {
    "BYTES": "bytes_contents", "FP32": "fp32_contents", "FP64": "fp64_contents", "INT64": "int64_contents", "INT32": "int_contents",
    "INT16": "int_contents", "INT8": "int_contents", "UINT64": "uint64_contents", "UINT32": "uint_contents", "UINT16": "uint_contents",
    "UINT8": "uint_contents",
}  # fmt: skip


class _Call:
    """A gRPC call as the predictor sees a caller."""

    alone = False
    traceparent = None

    def __init__(self) -> None:
        self.started = perf_counter()
        self.reply: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    @property
    def answered(self) -> bool:
        """Whether it has an answer or a refusal, or its caller left."""
        return self.reply.done()

    def answer(self, body: bytes, extra: bytes) -> None:
        """Take an answer."""
        del extra
        if not self.reply.done():
            self.reply.set_result(body)

    def decline(self, error: ServingError) -> None:
        """Take a refusal."""
        if not self.reply.done():
            self.reply.set_exception(error)


class GrpcServer:
    """The service, for as long as its process serves."""

    def __init__(self, app: App, *, host: str, port: int, tls: TlsFiles | None) -> None:
        try:
            import grpc
            import grpc.aio
        except ModuleNotFoundError as error:
            raise ServingError("--grpc-port needs grpcio and protobuf; install the extra `serve`, or leave the port out") from error
        self._app, self._grpc, self._messages = app, grpc, messages()
        limits = [("grpc.max_receive_message_length", MAX_BODY_BYTES), ("grpc.so_reuseport", 1)]
        self._server = grpc.aio.server(options=limits)
        methods: dict[str, Callable[[Any, Any], Awaitable[Any]]] = {
            "ServerLive": self._server_live, "ServerReady": self._server_ready, "ModelReady": self._model_ready,
            "ServerMetadata": self._server_metadata, "ModelMetadata": self._model_metadata, "ModelInfer": self._infer,
        }  # fmt: skip
        handlers = {name: self._handler(name, methods[name]) for name in METHODS}
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            if tls is None:
                self._server.add_insecure_port(address)
            else:
                self._server.add_secure_port(address, self._credentials(tls))
        except (RuntimeError, OSError) as error:
            raise ServingError(f"gRPC cannot listen on {address}: {error}; choose another with --grpc-port") from error

    def _credentials(self, files: TlsFiles) -> Any:
        """The files as they are at each handshake. Certificates of services are not asked for: none of them calls over gRPC."""
        stamp = files.stamp()

        def read() -> Any:
            return self._grpc.ssl_server_certificate_configuration([(files.key.read_bytes(), files.certificate.read_bytes())])

        def fetch() -> Any:
            nonlocal stamp
            try:
                found = files.stamp()
                if found == stamp:
                    return None  # goes on with what it has
                load_pair(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), certificate=files.certificate, key=files.key)
                stamp = found
                return read()
            except (OSError, ValueError):
                return None

        return self._grpc.dynamic_ssl_server_credentials(read(), fetch)

    async def start(self) -> None:
        """Answer from now on."""
        await self._server.start()

    async def stop(self, seconds: float) -> None:
        """Take no more calls, and answer those under way."""
        await self._server.stop(seconds)

    def _handler(self, name: str, method: Callable[[Any, Any], Awaitable[Any]]) -> Any:
        async def answer(request: Any, context: Any) -> Any:
            try:
                return await method(request, context)
            except ServingError as error:
                await context.abort(self._status(error), str(error))

        encode = (lambda reply: reply) if name == "ModelInfer" else (lambda reply: reply.SerializeToString())
        return self._grpc.unary_unary_rpc_method_handler(
            answer, request_deserializer=self._messages[f"{name}Request"].FromString, response_serializer=encode
        )

    def _status(self, error: ServingError) -> Any:
        code = self._grpc.StatusCode
        pairs = (
            (ScopeError, code.PERMISSION_DENIED), (AccessError, code.UNAUTHENTICATED), (NotFoundError, code.NOT_FOUND),
            (RequestError, code.INVALID_ARGUMENT), (UnforeseenError, code.INTERNAL),
        )  # fmt: skip
        return next((status for kind, status in pairs if isinstance(error, kind)), code.UNAVAILABLE)

    def _admit(self, context: Any, model: str) -> None:
        given = dict(context.invocation_metadata()).get("authorization")
        token = given.encode() if isinstance(given, str) else given
        self._app.gate.admit(token, loopback=_is_loopback(context.peer()), any_of=(PREDICT, f"{PREDICT}:{model}"))

    async def _server_live(self, request: Any, context: Any) -> Any:
        del request, context
        return self._messages["ServerLiveResponse"](live=True)

    async def _server_ready(self, request: Any, context: Any) -> Any:
        del request, context
        return self._messages["ServerReadyResponse"](ready=self._app.ready)

    async def _server_metadata(self, request: Any, context: Any) -> Any:
        del request, context
        return self._messages["ServerMetadataResponse"](name="falaj", version=SERVER_VERSION, extensions=v2.EXTENSIONS)

    async def _model_ready(self, request: Any, context: Any) -> Any:
        self._admit(context, request.name)
        ready = self._app.known(request.name).is_ready(request.version or None)
        return self._messages["ModelReadyResponse"](ready=ready)

    async def _model_metadata(self, request: Any, context: Any) -> Any:
        self._admit(context, request.name)
        bundle = self._app.known(request.name).of_version(request.version or None).bundle
        return self._messages["ModelMetadataResponse"](**v2.metadata(bundle))

    async def _infer(self, request: Any, context: Any) -> bytes:
        self._admit(context, request.model_name)
        app, call = self._app, _Call()
        route, request_id = app.known(request.model_name), app.predictor.new_id()
        version = request.model_version
        arm = route.of_version(version) if version else route.choose(request_id)
        batch = read_request(request, bundle=arm.bundle)
        outputs = tuple(output.name for output in request.outputs) or v2.OUTPUTS
        if wrong := [name for name in outputs if name not in v2.OUTPUTS]:
            raise RequestError(f"output {wrong[0]!r}: right would be {' or '.join(v2.OUTPUTS)}")

        def write(arm: Arm, request_id: str, found: np.ndarray, shares: list[list[float]]) -> tuple[bytes, bytes]:
            reply = self._messages["ModelInferResponse"](
                model_name=arm.bundle.model, model_version=arm.bundle.version, id=request.id or request_id
            )
            for name in outputs:
                if name == "probabilities":
                    reply.outputs.add(name=name, datatype="FP32", shape=list(found.shape))
                    reply.raw_output_contents.append(found.tobytes())
                else:
                    reply.outputs.add(name=name, datatype="BYTES", shape=[len(shares)])
                    reply.raw_output_contents.append(v2.write_texts(arm.bundle.labels(found, shares)))
            return reply.SerializeToString(), b""

        left = context.time_remaining()
        timeout = DEADLINE_SECONDS if left is None else max(0.0, min(left, 60.0))
        app.predictor.tensors(call, route, arm=arm, request_id=request_id, batch=batch, write=write, timeout=timeout)
        return await call.reply


def read_request(request: Any, *, bundle: Bundle) -> Encoded:
    """Rows of an infer request: tensors raw, or in the contents of their type. RequestError names what is wrong."""
    raw = list(request.raw_input_contents)
    if raw and len(raw) != len(request.inputs):
        raise RequestError(
            f"raw_input_contents holds {len(raw)} tensors for {len(request.inputs)} inputs; right would be one each, or none"
        )
    inputs, blobs = [], []
    for at, tensor in enumerate(request.inputs):
        described: dict[str, Any] = {"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.shape)}
        if raw:
            described["parameters"] = {"binary_data_size": len(raw[at])}
            blobs.append(raw[at])
        else:
            values = list(getattr(tensor.contents, _CONTENTS.get(tensor.datatype, "fp32_contents")))
            if tensor.datatype == "BYTES":
                described["data"] = [_text(value, tensor.name) for value in values]
            else:
                described["data"] = [None if value != value else value for value in values]  # noqa: PLR0124 - NaN is missing
        inputs.append(described)
    return v2.read_infer({"inputs": inputs}, bundle=bundle, binary=b"".join(blobs))[0]


def _text(value: bytes, name: str) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise RequestError(f"input {name!r}: every value must be text in UTF-8 ({error})") from error


def _is_loopback(peer: str) -> bool:
    """Whether gRPC's name of a peer, such as `ipv4:127.0.0.1:4711`, is this machine."""
    kind, _, place = peer.partition(":")
    if kind == "unix":
        return True
    try:
        return ip_address(place.rpartition(":")[0].replace("%5B", "").replace("%5D", "").strip("[]")).is_loopback
    except ValueError:
        return False
