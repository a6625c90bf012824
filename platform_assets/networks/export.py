"""Trained network -> one ONNX file with the interface of specs.records.FeatureSchema, preprocessing inside.

Numbers, dates and images are preprocessed by layers of the network itself. Strings are not tensors in torch: their look-up is
three nodes in front, for all columns at once: the column's number is put before each value, one LabelEncoder finds the row of
the common table, and what is not found takes its column's `unknown` row.
"""

from __future__ import annotations

import io
import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx
import torch
from onnx import TensorProto, compose, helper
from torch import Tensor, nn

from platform_assets.networks.preprocessing import FIRST, MISSING, UNKNOWN, Preprocessing

if TYPE_CHECKING:
    from platform_assets.networks.checkpoint import Trained

OPSET = 20  # the first with StringConcat
ML_OPSET = 4
INPUTS = ("numeric", "ids", "image")


class _Answer(nn.Module):
    """The network with probabilities out and only the inputs that exist."""

    def __init__(self, network: nn.Module, names: tuple[str, ...]) -> None:
        super().__init__()
        self.network = network
        self.names = names

    def forward(self, *present: Tensor) -> Tensor:
        given = dict(zip(self.names, present, strict=True))
        absent = present[0].new_empty((present[0].shape[0], 0))
        return self.network(*(given.get(name, absent) for name in INPUTS)).softmax(-1)


def export_onnx(trained: Trained, path: Path) -> None:
    """Write the network as one ONNX file, any batch size, whole or not at all."""
    model = _trace(trained)
    if trained.preprocessing.categories:
        model = compose.merge_models(_look_up(trained.preprocessing), model, io_map=[("ids_found", "ids")])
        # The merge leaves each part's list of operator sets: readers expect one entry a domain.
        del model.opset_import[:]
        model.opset_import.extend([helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", ML_OPSET)])
    onnx.checker.check_model(model)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_bytes(model.SerializeToString())
    beside.replace(path)


def _trace(trained: Trained) -> onnx.ModelProto:
    fitted = trained.preprocessing
    rows = 3  # any number but one, which tracing would take for a constant
    examples = {
        "numeric": torch.zeros(rows, len(fitted.numbers)),
        "ids": torch.zeros(rows, len(fitted.categories), dtype=torch.int64),
        "image": torch.zeros(rows, fitted.image_size),
    }
    names = tuple(name for name in INPUTS if examples[name].shape[1])
    buffer: Any = io.BytesIO()  # the tracing exporter writes to memory as well, though its signature names paths alone
    with warnings.catch_warnings():
        # The tracing exporter takes 0.3 CPU seconds here, the newer one tens, for the same graph; its deprecation is known.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            _Answer(trained.network, names).eval(), tuple(examples[name] for name in names), buffer, dynamo=False, opset_version=OPSET,
            input_names=list(names), output_names=["probabilities"], dynamic_axes={name: {0: "rows"} for name in (*names, "probabilities")},
        )  # fmt: skip
    model = onnx.load_from_string(buffer.getvalue())
    model.ir_version = 10
    if fitted.categories:
        model.opset_import.append(helper.make_opsetid("ai.onnx.ml", ML_OPSET))
    return model


def _look_up(fitted: Preprocessing) -> onnx.ModelProto:
    keys, values, unknown = [], [], []
    for number, (column, offset) in enumerate(zip(fitted.categories, fitted.offsets, strict=True)):
        names = ((MISSING, ""), *((FIRST + place, value) for place, value in enumerate(column.values)))
        keys += [f"{number}={name}" for _, name in names]
        values += [offset + place for place, _ in names]
        unknown.append(offset + UNKNOWN)
    count = len(fitted.categories)
    prefixes = helper.make_tensor("prefixes", TensorProto.STRING, [1, count], [f"{number}=".encode() for number in range(count)])  # type: ignore[misc]
    unknowns = helper.make_tensor("unknown_rows", TensorProto.INT64, [1, count], unknown)
    zero = helper.make_tensor("zero", TensorProto.INT64, [], [0])
    nodes = [
        helper.make_node("StringConcat", ["prefixes", "categorical"], ["keyed"]),
        helper.make_node(
            "LabelEncoder", ["keyed"], ["row"], domain="ai.onnx.ml", keys_strings=keys, values_int64s=values, default_int64=-1
        ),
        helper.make_node("Less", ["row", "zero"], ["not_found"]),
        helper.make_node("Where", ["not_found", "unknown_rows", "row"], ["ids_found"]),
    ]
    graph = helper.make_graph(
        nodes, "look_up",
        [helper.make_tensor_value_info("categorical", TensorProto.STRING, ["rows", count])],
        [helper.make_tensor_value_info("ids_found", TensorProto.INT64, ["rows", count])],
        [prefixes, unknowns, zero],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", ML_OPSET)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)
