"""Messages of Open Inference Protocol V2 over gRPC, made from this table when the server starts: no generated code, no compiler.

https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/open_inference_grpc.proto
"""

from __future__ import annotations

from functools import cache
from typing import Any

SERVICE = "inference.GRPCInferenceService"
METHODS = ("ServerLive", "ServerReady", "ModelReady", "ServerMetadata", "ModelMetadata", "ModelInfer")
_TENSOR = "name:string datatype:string shape:*int64"
_PARAMETERS = "parameters:%InferParameter"
# Fields in the order of their numbers; `*` is repeated, `%` a map from string, `?` a member of the one oneof.
_MESSAGES = {
    "ServerLiveRequest": "",
    "ServerLiveResponse": "live:bool",
    "ServerReadyRequest": "",
    "ServerReadyResponse": "ready:bool",
    "ModelReadyRequest": "name:string version:string",
    "ModelReadyResponse": "ready:bool",
    "ServerMetadataRequest": "",
    "ServerMetadataResponse": "name:string version:string extensions:*string",
    "ModelMetadataRequest": "name:string version:string",
    "TensorMetadata": _TENSOR,
    "ModelMetadataResponse": "name:string versions:*string platform:string inputs:*TensorMetadata outputs:*TensorMetadata",
    "InferParameter": "bool_param:?bool int64_param:?int64 string_param:?string double_param:?double uint64_param:?uint64",
    "InferTensorContents": (
        "bool_contents:*bool int_contents:*int32 int64_contents:*int64 uint_contents:*uint32 uint64_contents:*uint64 "
        "fp32_contents:*float fp64_contents:*double bytes_contents:*bytes"
    ),
    "InferInputTensor": f"{_TENSOR} {_PARAMETERS} contents:InferTensorContents",
    "InferRequestedOutputTensor": f"name:string {_PARAMETERS}",
    "ModelInferRequest": (
        f"model_name:string model_version:string id:string {_PARAMETERS} inputs:*InferInputTensor "
        "outputs:*InferRequestedOutputTensor raw_input_contents:*bytes"
    ),
    "InferOutputTensor": f"{_TENSOR} {_PARAMETERS} contents:InferTensorContents",
    "ModelInferResponse": (
        f"model_name:string model_version:string id:string {_PARAMETERS} outputs:*InferOutputTensor raw_output_contents:*bytes"
    ),
}


@cache
def messages() -> dict[str, Any]:
    """Message classes by name."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    file = descriptor_pb2.FileDescriptorProto(name="falaj_open_inference.proto", package="inference", syntax="proto3")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for number, text in enumerate(fields.split(), start=1):
            _add_field(message, text, number)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"inference.{name}")) for name in _MESSAGES}


def _add_field(message: Any, text: str, number: int) -> None:
    from google.protobuf.descriptor_pb2 import FieldDescriptorProto as Field

    name, _, kind = text.partition(":")
    form, kind = (kind[0], kind[1:]) if kind[0] in "*%?" else ("", kind)
    field = message.field.add(name=name, number=number, label=Field.LABEL_REPEATED if form in ("*", "%") else Field.LABEL_OPTIONAL)
    if form == "?":
        if not message.oneof_decl:
            message.oneof_decl.add(name="parameter_choice")
        field.oneof_index = 0
    if form == "%":
        entry = message.nested_type.add(name=f"{name.capitalize()}Entry")
        entry.options.map_entry = True
        entry.field.add(name="key", number=1, label=Field.LABEL_OPTIONAL, type=Field.TYPE_STRING)
        entry.field.add(name="value", number=2, label=Field.LABEL_OPTIONAL, type=Field.TYPE_MESSAGE, type_name=f".inference.{kind}")
        field.type, field.type_name = Field.TYPE_MESSAGE, f".inference.{message.name}.{entry.name}"
    elif kind in _MESSAGES:
        field.type, field.type_name = Field.TYPE_MESSAGE, f".inference.{kind}"
    else:
        field.type = getattr(Field, f"TYPE_{kind.upper()}")
