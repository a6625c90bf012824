"""Writes small ONNX graphs node by node: short names, no notes, nothing twice. What a student of a few kilobytes must not carry."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from platform_assets.networks.preprocessing import FIRST, MISSING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from platform_assets.networks.preprocessing import Preprocessing

OPSET = 21  # the first with four-bit numbers
ML_OPSET = 5
IR_VERSION = 10
ML = "ai.onnx.ml"
MICROSOFT = "com.microsoft"
OUTPUT = "probabilities"
_ALPHABET = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"


def short_name(number: int) -> str:
    """Give the name of the nth value: one letter, then two."""
    name = ""
    while True:
        number, place = divmod(number, len(_ALPHABET))
        name = _ALPHABET[place] + name
        if not number:
            return name
        number -= 1


class GraphWriter:
    """A graph under way; equal constants are one."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self._initialisers: list[onnx.TensorProto] = []
        self._inputs: list[onnx.ValueInfoProto] = []
        self._names = 0

    def _name(self) -> str:
        self._names += 1
        return short_name(self._names - 1)

    def input(self, name: str, *, width: int) -> str:
        """Declare an input of the model interface."""
        kind = TensorProto.STRING if name in ("categorical", "text") else TensorProto.FLOAT
        self._inputs.append(helper.make_tensor_value_info(name, kind, ["n", width]))
        return name

    def constant(self, value: NDArray[Any]) -> str:
        """Keep an array once."""
        key = (str(value.dtype), value.shape, value.tobytes() if value.dtype != object else repr(value.tolist()).encode())
        if key not in self._constants:
            self._constants[key] = self._name()
            self._initialisers.append(numpy_helper.from_array(value, self._constants[key]))
        return self._constants[key]

    def small(self, whole: NDArray[Any], *, to: int) -> str:
        """Keep whole numbers below 256 as bytes; `to` is what they are cast to when the graph is loaded, not at each call."""
        return self.add("Cast", self.constant(whole.astype(np.uint8)), to=to) if whole.max(initial=0) < 256 else self.constant(whole)  # noqa: PLR2004

    def add(self, op: str, *inputs: str, domain: str = "", gives: str | None = None, **attributes: Any) -> str:
        """Add a node with one output; return the output's name."""
        output = gives or self._name()
        self._nodes.append(helper.make_node(op, list(inputs), [output], domain=domain, **attributes))
        return output

    def finish(self, *, classes: int) -> onnx.ModelProto:
        """Return the model; one node must have given `probabilities`."""
        output = helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["n", classes])
        graph = helper.make_graph(self._nodes, "g", self._inputs, [output], self._initialisers)
        domains = sorted({node.domain for node in self._nodes} | {""})
        versions = {"": OPSET, ML: ML_OPSET, MICROSOFT: 1}
        return helper.make_model(
            graph, ir_version=IR_VERSION, opset_imports=[helper.make_opsetid(name, versions[name]) for name in domains]
        )


def affine(
    writer: GraphWriter, given: str, weight: NDArray[np.float32], *, add: str | NDArray[np.float32] | None = None, **how: Any
) -> str:
    """Add `given @ weight + add`, weight being [in, out]."""
    parts = [given, writer.constant(np.ascontiguousarray(weight, np.float32))]
    if add is not None:
        parts.append(add if isinstance(add, str) else writer.constant(np.ascontiguousarray(add, np.float32)))
    return writer.add("Gemm", *parts, **how)


def look_up(writer: GraphWriter, fitted: Preprocessing, *, values: dict[int, Any], default: Any) -> str:
    """Add the look-up of all categories: what each row of the common table stands for becomes its value, everything else the default.

    Values are whole numbers or floats, all of one kind; the column's mark stands before a text: equal texts of two columns differ.
    """
    count = len(fitted.categories)
    keys, found = [], []
    for number, (column, offset) in enumerate(zip(fitted.categories, fitted.offsets, strict=True)):
        names: Iterable[tuple[int, str]] = ((MISSING, ""), *((FIRST + place, value) for place, value in enumerate(column.values)))
        for place, name in names:
            if offset + place in values:
                keys.append(f"{column_mark(number)}{name}")
                found.append(values[offset + place])
    prefixes = writer.constant(np.array([[column_mark(number) for number in range(count)]], object))
    keyed = writer.add("StringConcat", prefixes, writer.input("categorical", width=count))
    kind: dict[str, Any] = {"values_int64s": found, "default_int64": default}
    if isinstance(default, float):
        kind = {"values_floats": found, "default_float": default}
    return writer.add("LabelEncoder", keyed, domain=ML, keys_strings=keys, **kind)


def column_mark(number: int) -> str:
    """Give the sign before every text of a column: marks of different columns have one length, so none begins another."""
    return short_name(number) if number < len(_ALPHABET) else f"{number:04d}"


def write_graph(model: onnx.ModelProto, path: Path) -> None:
    """Write a model whole or not at all."""
    onnx.checker.check_model(model)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_bytes(serialise(model))
    beside.replace(path)


def serialise(model: onnx.ModelProto) -> bytes:
    """Return the model's bytes with the numbers of attributes packed.

    ONNX declares them unpacked, a tag before each; every protobuf reader takes both (Protocol Buffers, "Encoding", packed repeated
    fields), and a tree ensemble is a third smaller.
    """
    return _packed(model.SerializeToString(), (_GRAPH, _NODE, _ATTRIBUTE))


_GRAPH, _NODE, _ATTRIBUTE = 7, 1, 5  # field numbers of onnx.proto: ModelProto.graph, GraphProto.node, NodeProto.attribute
_FLOATS, _INTS = 7, 8  # of AttributeProto
_VARINT, _LONG, _BYTES, _SHORT = 0, 1, 2, 5  # wire types


def _packed(message: bytes, path: tuple[int, ...]) -> bytes:
    out, numbers = bytearray(), {_FLOATS: bytearray(), _INTS: bytearray()}
    for field, wire, tag, value in _fields(message):
        if path and field == path[0] and wire == _BYTES:
            inner = _packed(value, path[1:])
            out += tag + _varint(len(inner)) + inner
        elif not path and field in numbers and wire != _BYTES:
            numbers[field] += value
        else:
            out += tag + (_varint(len(value)) if wire == _BYTES else b"") + value
    for field, packed in numbers.items():
        if packed:
            out += _varint(field << 3 | _BYTES) + _varint(len(packed)) + packed
    return bytes(out)


def _fields(message: bytes) -> Iterator[tuple[int, int, bytes, bytes]]:
    """Give field number, wire type, the tag's bytes and the value's of every field."""
    at = 0
    while at < len(message):
        start = at
        key, at = _read_varint(message, at)
        tag, wire = message[start:at], key & 7
        if wire == _BYTES:
            length, at = _read_varint(message, at)
            end = at + length
        elif wire == _VARINT:
            _, end = _read_varint(message, at)
        else:
            end = at + {_LONG: 8, _SHORT: 4}[wire]
        yield key >> 3, wire, tag, message[at:end]
        at = end


def _read_varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        at += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:  # noqa: PLR2004 - the high bit says that more follows
            return value, at


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:  # noqa: PLR2004 - seven bits a byte
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)
