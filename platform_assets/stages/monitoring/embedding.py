"""Texts and images as a few numbers a row, so that a drift is seen that leaves every pixel and word as frequent as it was.

The numbers are what the released network makes of them before its last layer; of a model without such a layer, or one that reads other
columns too, a fixed random projection of the pixels, or of the pairs of words that follow each other (Johnson and Lindenstrauss 1984,
Contemp. Math. 26, 189; hashing as by Weinberger et al. 2009, ICML). They are watched like columns: alone, in pairs, all together.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from platform_assets.answers import model_inputs
from platform_assets.stages.monitoring.signals import embedding_column

if TYPE_CHECKING:
    import pyarrow as pa

    from platform_assets.specs.records import Feature, FeatureSchema

DIMENSIONS = 8
_BATCH = 512  # rows, as answers.open_model runs them
_HASHED = 4096  # cells that pairs of words are counted in
_SEED = 65
_DENSE = frozenset({"MatMul", "Gemm", "MatMulInteger", "MatMulNBits", "FusedMatMul", "FusedGemm", "DynamicQuantizeMatMul"})
_BEHIND = frozenset({  # what stands between the last layer and the answers
    "Softmax", "Sigmoid", "Add", "Sub", "Mul", "Div", "Neg", "Concat", "Reshape", "Squeeze", "Unsqueeze", "Cast", "Identity", "Clip",
    "QuantizeLinear", "DequantizeLinear",
})  # fmt: skip
_QUANTISED = frozenset({"QuantizeLinear", "DynamicQuantizeLinear"})


@dataclass(frozen=True)
class Embedding:
    """How one feature is embedded: `tensor` is the model's value before its last layer; "": by a random projection."""

    feature: str
    tensor: str = ""


def choose_embeddings(schema: FeatureSchema, *, model: bytes) -> tuple[Embedding, ...]:
    """Return one for each text and image: of the network where it reads nothing else and has a last layer, else a projection."""
    read = schema.of_kind("text", "image")
    alone = len(read) == 1 and len(schema.features) == 1
    return tuple(Embedding(feature.name, find_penultimate(model) if alone else "") for feature in read)


def find_penultimate(model: bytes) -> str:
    """Return the name of the value that an ONNX graph's last dense layer reads; "" where answers come from something else, like trees."""
    import onnx

    graph = onnx.load_model_from_string(model).graph
    made = {output: node for node in graph.node for output in node.output}
    node = made.get("probabilities")
    while node is not None and node.op_type not in _DENSE:
        if node.op_type not in _BEHIND:
            return ""
        node = next((made[name] for name in node.input if name in made), None)
    if node is None:
        return ""
    before = made.get(node.input[0])
    while before is not None and before.op_type in _QUANTISED:
        before = made.get(before.input[0])
    return str(before.output[0]) if before is not None else ""


def embed_rows(rows: pa.Table, embeddings: tuple[Embedding, ...], *, schema: FeatureSchema, model: bytes | None) -> pa.Table:
    """Return rows with DIMENSIONS columns more for each embedding. Without the model those of a network are left out."""
    import pyarrow as pa

    features = {feature.name: feature for feature in schema.features}
    for one in embeddings:
        if one.tensor and model is None:
            continue
        feature = features[one.feature]
        found = _network(rows, one.tensor, schema=schema, model=model) if one.tensor and model else _projection(rows, feature)
        for place in range(found.shape[1]):
            rows = rows.append_column(embedding_column(feature.name, place), pa.array(found[:, place], pa.float64()))
    return rows


def _network(rows: pa.Table, tensor: str, *, schema: FeatureSchema, model: bytes) -> np.ndarray:
    import onnx
    import onnxruntime as ort

    graph = onnx.load_model_from_string(model)
    graph.graph.output.append(onnx.ValueInfoProto(name=tensor))
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = ort.InferenceSession(graph.SerializeToString(), sess_options=options, providers=["CPUExecutionProvider"])
    parts = [rows.slice(start, _BATCH) for start in range(0, rows.num_rows, _BATCH)]
    found = [session.run([tensor], model_inputs(part, schema=schema))[0] for part in parts]
    values = np.concatenate(found).astype(np.float64).reshape(rows.num_rows, -1) if found else np.zeros((0, DIMENSIONS))
    return values if values.shape[1] <= DIMENSIONS else values @ _directions(values.shape[1])


def _projection(rows: pa.Table, feature: Feature) -> np.ndarray:
    column = rows[feature.name]
    if feature.kind == "image":
        flat = column.combine_chunks().flatten().to_numpy(zero_copy_only=False)
        return np.asarray(flat, np.float64).reshape(-1, feature.size) @ _directions(feature.size)
    directions = _directions(_HASHED)
    return np.array([_project_text(text or "", directions) for text in column.to_pylist()]).reshape(-1, DIMENSIONS)


def _project_text(text: str, directions: np.ndarray) -> np.ndarray:
    """Mean direction of the pairs of words that follow each other."""
    words = ["", *text.lower().split(), ""]
    cells = [zlib.crc32(f"{one}\0{other}".encode()) % _HASHED for one, other in pairwise(words)]
    mean: np.ndarray = directions[cells].mean(axis=0)
    return mean


@cache
def _directions(size: int) -> np.ndarray:
    """Random directions [size, DIMENSIONS], always the same."""
    return np.random.default_rng([_SEED, size]).normal(size=(size, DIMENSIONS)) / np.sqrt(size)
