"""Trained network -> one ONNX file with the interface of specs.records.FeatureSchema, preprocessing inside.

Numbers, dates and images are preprocessed by layers of the network itself. Strings are not tensors in torch: their look-up is
some nodes in front. Categories, all columns at once: the column's number is put before each value, one LabelEncoder finds the row of
the common table, and what is not found takes its column's `unknown` row. Texts: onnxruntime's Tokenizer cuts them by the pattern of
`tokens`, one LabelEncoder numbers the pieces, and each row is padded or cut to its length.
"""

from __future__ import annotations

import io
import os
import warnings
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx
import torch
from onnx import TensorProto, compose, helper
from torch import Tensor, nn

from platform_assets.errors import TrainingError
from platform_assets.networks import tokens
from platform_assets.networks.preprocessing import FIRST, MISSING, UNKNOWN, Preprocessing

if TYPE_CHECKING:
    from collections.abc import Iterator

    from platform_assets.networks.checkpoint import Trained
    from platform_assets.networks.tokens import Tokeniser

MICROSOFT = "com.microsoft"  # onnxruntime's own operators
OPSET = 20  # the first with StringConcat
ML_OPSET = 4
INPUTS = ("numeric", "ids", "image", "tokens")
NEEDED = INPUTS[:3]  # a network takes them always, with no columns where there are none


class _Answer(nn.Module):
    """The network with probabilities out and only the inputs that exist."""

    def __init__(self, network: nn.Module, names: tuple[str, ...]) -> None:
        super().__init__()
        self.network = network
        self.names = names

    def forward(self, *present: Tensor) -> Tensor:
        given = dict(zip(self.names, present, strict=True))
        absent = present[0].new_empty((present[0].shape[0], 0))
        return self.network(*(given.get(name, absent) for name in INPUTS if name in NEEDED or name in given)).softmax(-1)


def export_onnx(trained: Trained, path: Path) -> None:
    """Write the network as one ONNX file, any batch size, whole or not at all."""
    model = _trace(trained)
    if trained.preprocessing.categories:
        model = _before(_look_up(trained.preprocessing), model, gives="ids_found", takes="ids")
    if trained.preprocessing.tokeniser is not None:
        model = _before(_cut_texts(trained.preprocessing.tokeniser), model, gives="tokens_found", takes="tokens")
    onnx.checker.check_model(model)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_bytes(model.SerializeToString())
    beside.replace(path)


def _before(first: onnx.ModelProto, second: onnx.ModelProto, *, gives: str, takes: str) -> onnx.ModelProto:
    merged = compose.merge_models(first, second, io_map=[(gives, takes)])
    # The merge leaves each part's list of operator sets: readers expect one entry a domain.
    del merged.opset_import[:]
    merged.opset_import.extend(_opsets())
    return merged


def _opsets() -> list[onnx.OperatorSetIdProto]:
    return [helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", ML_OPSET), helper.make_opsetid(MICROSOFT, 1)]


def _trace(trained: Trained) -> onnx.ModelProto:
    fitted = trained.preprocessing
    rows = 3  # any number but one, which tracing would take for a constant
    examples = {
        "numeric": torch.zeros(rows, len(fitted.numbers)),
        "ids": torch.zeros(rows, len(fitted.categories), dtype=torch.int64),
        "image": torch.zeros(rows, fitted.image_size),
        "tokens": torch.zeros(rows, fitted.tokeniser.width if fitted.tokeniser is not None else 0, dtype=torch.int64),
    }
    names = tuple(name for name in INPUTS if examples[name].shape[1])
    buffer: Any = io.BytesIO()  # the tracing exporter writes to memory as well, though its signature names paths alone
    with warnings.catch_warnings(), _refusal(trained):
        # The tracing exporter takes 0.3 CPU seconds here, the newer one tens, for the same graph; its deprecation is known.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            _Answer(trained.network, names).eval(), tuple(examples[name] for name in names), buffer, dynamo=False, opset_version=OPSET,
            input_names=list(names), output_names=["probabilities"], dynamic_axes={name: {0: "rows"} for name in (*names, "probabilities")},
        )  # fmt: skip
    model = onnx.load_from_string(buffer.getvalue())
    if {entry.name for entry in model.graph.input} != set(names):
        found = ", ".join(entry.name for entry in model.graph.input) or "nothing"
        raise TrainingError(
            f"{trained.plan.architecture} reads {found} of its inputs {', '.join(names)}; leave the views out that it does not"
        )
    model.ir_version = 10
    del model.opset_import[:]
    model.opset_import.extend(_opsets() if fitted.categories or fitted.tokeniser is not None else _opsets()[:1])
    return model


@contextmanager
def _refusal(trained: Trained) -> Iterator[None]:
    """Say in one sentence why a network cannot become a graph."""
    try:
        yield
    except (RuntimeError, TypeError, ValueError, torch.onnx.errors.OnnxExporterError) as error:
        name = trained.plan.module or trained.plan.architecture
        said = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise TrainingError(f"{name} cannot be exported to ONNX ({said}); use operations that opset {OPSET} has") from error


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
    return helper.make_model(graph, opset_imports=_opsets(), ir_version=10)


def _cut_texts(tokeniser: Tokeniser) -> onnx.ModelProto:
    """Cut texts [rows, columns] into tokens [rows, columns * max_tokens], as `tokens.encode_texts` does."""
    count, length = len(tokeniser.columns), tokeniser.max_tokens
    keys = ["", *tokeniser.pieces]  # the Tokenizer pads with "", and no piece is empty
    values = [tokens.PAD, *range(tokens.FIRST, tokeniser.size)]
    constants = {
        "begin": [0], "end": [length], "pieces_axis": [2], "padding_tail": [count, length], "flat": [0, count * length],
    }  # fmt: skip
    initialisers = [helper.make_tensor(name, TensorProto.INT64, [len(value)], value) for name, value in constants.items()]
    space = helper.make_tensor("space", TensorProto.STRING, [1], [b" "])  # type: ignore[list-item]
    pad = helper.make_tensor("pad", TensorProto.INT64, [1], [tokens.PAD])
    nodes = [
        helper.make_node("StringConcat", ["space", "text"], ["spaced"]),
        helper.make_node(
            "Tokenizer", ["spaced"], ["pieces"], domain=MICROSOFT, mark=0, mincharnum=1, pad_value="",
            tokenexp=tokens.piece_pattern(tokeniser.pieces),
        ),
        helper.make_node(
            "LabelEncoder", ["pieces"], ["numbered"], domain="ai.onnx.ml", keys_strings=keys, values_int64s=values,
            default_int64=tokens.UNKNOWN,
        ),
        helper.make_node("Slice", ["numbered", "begin", "end", "pieces_axis"], ["near"]),
        helper.make_node("Shape", ["text"], ["rows"], start=0, end=1),
        helper.make_node("Concat", ["rows", "padding_tail"], ["padding_shape"], axis=0),
        helper.make_node("Expand", ["pad", "padding_shape"], ["padded"]),
        helper.make_node("Concat", ["near", "padded"], ["long"], axis=2),
        helper.make_node("Slice", ["long", "begin", "end", "pieces_axis"], ["whole"]),
        helper.make_node("Reshape", ["whole", "flat"], ["tokens_found"]),
    ]  # fmt: skip
    graph = helper.make_graph(
        nodes, "cut_texts",
        [helper.make_tensor_value_info("text", TensorProto.STRING, ["rows", count])],
        [helper.make_tensor_value_info("tokens_found", TensorProto.INT64, ["rows", count * length])],
        [*initialisers, space, pad],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=_opsets(), ir_version=10)
