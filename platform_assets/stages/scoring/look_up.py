"""Cuts the look-up of categories off a released graph, so that each different category is looked up once and not once a row.

Strings are slow to hand to a graph (a Python object and a copy a cell) and slow in it (a concatenation and a hash a cell). Where the nodes
behind the input `categorical` work cell by cell, their answer for a column's few values is all that is needed; the rest of the graph takes
the numbers. A graph where that cannot be seen stays whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto

_INPUT = "categorical"
_BY_CELL = frozenset({"StringConcat", "LabelEncoder", "Identity", "Cast"})  # and constants that are alike for all rows
_OPSETS_OF_OUTPUT = {"values_int64s": "INT64", "values_floats": "FLOAT"}


@dataclass(frozen=True)
class Cut:
    """A graph in two: `look_up` gives `tensor` for strings [rows, columns], `rest` takes it instead of them. Serialised."""

    look_up: bytes
    rest: bytes
    tensor: str


def cut_look_up(model_file: bytes) -> Cut | None:
    """Cut behind the last node that sees strings; None where the graph has no categories, or does more with them than looking up."""
    import onnx

    model = onnx.load_model_from_string(model_file)
    graph = model.graph
    front: list[NodeProto] = []
    tensor = _INPUT
    constants = {one.name: list(one.dims) for one in graph.initializer}
    if _INPUT not in {entry.name for entry in graph.input}:
        return None
    for node in graph.node:  # in topological order
        if tensor not in node.input:
            continue
        readers = [other for other in graph.node if tensor in other.input]
        beside = [constants.get(name) for name in node.input if name != tensor]
        if len(readers) != 1 or node.op_type not in _BY_CELL or any(dims is None or not _is_alike_for_rows(dims) for dims in beside):
            return None
        front.append(node)
        tensor = node.output[0]
        kind = next((kind for name, kind in _OPSETS_OF_OUTPUT.items() if any(a.name == name for a in node.attribute)), None)
        if node.op_type == "LabelEncoder":
            return None if kind is None else _cut(model, front, tensor=tensor, kind=kind)
    return None


def _is_alike_for_rows(dims: list[int]) -> bool:
    return len(dims) < 2 or dims[0] == 1  # noqa: PLR2004 - [rows, columns]


def _cut(model: ModelProto, front: list[NodeProto], *, tensor: str, kind: str) -> Cut:
    import onnx
    from onnx import TensorProto, helper

    graph = model.graph
    columns = next(entry for entry in graph.input if entry.name == _INPUT).type.tensor_type.shape.dim[1].dim_value
    between = helper.make_tensor_value_info(tensor, getattr(TensorProto, kind), ["rows", columns])
    needed = {name for node in front for name in node.input}
    first = helper.make_graph(
        front, "look_up", [entry for entry in graph.input if entry.name == _INPUT], [between],
        [one for one in graph.initializer if one.name in needed],
    )  # fmt: skip
    rest = onnx.ModelProto()
    rest.CopyFrom(model)
    _without(rest.graph, front)
    rest.graph.input.append(between)
    return Cut(_like(model, first).SerializeToString(), rest.SerializeToString(), tensor)


def _without(graph: GraphProto, front: list[NodeProto]) -> None:
    kept = [node for node in graph.node if node not in front]
    inputs = [entry for entry in graph.input if entry.name != _INPUT]
    used = {name for node in kept for name in node.input}
    constants = [one for one in graph.initializer if one.name in used]
    for field, values in ((graph.node, kept), (graph.input, inputs), (graph.initializer, constants)):
        del field[:]
        field.extend(values)


def _like(model: ModelProto, graph: GraphProto) -> ModelProto:
    from onnx import helper

    return helper.make_model(graph, opset_imports=list(model.opset_import), ir_version=model.ir_version)
