"""Weights in eight or four bits while answering, activations in float: onnxruntime's MatMulNBits, blocks of 32. `int8`, `int8-4`.

Needs neither VNNI nor a reduced range: nothing in it can saturate, so a candidate means the same on every CPU.
"""

from __future__ import annotations

import logging
from math import prod
from typing import TYPE_CHECKING

from platform_assets.stages.compression.graph import write_graph
from platform_assets.stages.compression.methods import CompressionRefusedError

if TYPE_CHECKING:
    from pathlib import Path

    from platform_assets.stages.compression.methods import Bench

LEAST_SHARE = 0.02  # of the weights, below which nothing is gained
BLOCK = 32  # weights that share one scale
FLOAT_ACTIVATIONS = 0  # onnxruntime's accuracy_level: 4 would round activations as well


def write(source: Path, target: Path, option: str, bench: Bench) -> None:
    """Write `target` with the weights of every matrix product of `source` in few bits, whole or not at all."""
    del bench
    import onnx
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer
    from onnxruntime.quantization.onnx_model import ONNXModel

    logging.getLogger("onnxruntime.quantization.matmul_nbits_quantizer").setLevel(logging.ERROR)
    model = ONNXModel(onnx.load(source))
    model.replace_gemm_with_matmul()
    weights = {weight.name: weight for weight in model.model.graph.initializer}
    products = [name for node in model.model.graph.node if node.op_type == "MatMul" for name in node.input if name in weights]
    weights_in_products = sum(prod(weights[name].dims) for name in products)
    quantiser = MatMulNBitsQuantizer(
        model.model, bits=int(option or 8), block_size=BLOCK, is_symmetric=True, accuracy_level=FLOAT_ACTIVATIONS
    )
    quantiser.process()
    written = quantiser.model.model
    if not any(node.op_type == "MatMulNBits" for node in written.graph.node):
        raise CompressionRefusedError(f"{source.parent.name} holds no matrix product with constant weights to quantise")
    share = weights_in_products / max(1, sum(prod(weight.dims) for weight in weights.values()))
    if share < LEAST_SHARE:
        raise CompressionRefusedError(
            f"only {100 * share:.2g} % of the weights of {source.parent.name} are in matrix products; convolutions stay in float"
        )
    write_graph(written, target)
