"""Weights to eight bits with onnxruntime, activations in float: MatMulNBits, blocks of 32, symmetric.

Quantising activations too (dynamically) would take its scale from the whole batch: a row's answer then depends on its neighbours
(by up to 0.02 in probability on both models here), which this platform does not allow. Eight-bit weights with float activations also
need neither VNNI nor a reduced range, so a candidate means the same on every CPU.
"""

from __future__ import annotations

import logging
import os
from math import prod
from typing import TYPE_CHECKING

from platform_assets.stages.compression.methods import CompressionRefusedError

if TYPE_CHECKING:
    from pathlib import Path

LEAST_SHARE = 0.02  # of the weights, below which nothing is gained
BLOCK = 32  # weights that share one scale
FLOAT_ACTIVATIONS = 0  # onnxruntime's accuracy_level: 4 would round activations as well


def quantise(source: Path, target: Path) -> None:
    """Write `target` with the weights of every matrix product of `source` in eight bits, whole or not at all."""
    import onnx
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer
    from onnxruntime.quantization.onnx_model import ONNXModel

    logging.getLogger("onnxruntime.quantization.matmul_nbits_quantizer").setLevel(logging.ERROR)
    model = ONNXModel(onnx.load(source))
    model.replace_gemm_with_matmul()
    weights = {weight.name: weight for weight in model.model.graph.initializer}
    products = [name for node in model.model.graph.node if node.op_type == "MatMul" for name in node.input if name in weights]
    weights_in_products = sum(prod(weights[name].dims) for name in products)
    quantiser = MatMulNBitsQuantizer(model.model, bits=8, block_size=BLOCK, is_symmetric=True, accuracy_level=FLOAT_ACTIVATIONS)
    quantiser.process()
    written = quantiser.model.model
    if not any(node.op_type == "MatMulNBits" for node in written.graph.node):
        raise CompressionRefusedError(f"{source.name} holds no matrix product with constant weights to quantise")
    share = weights_in_products / max(1, sum(prod(weight.dims) for weight in weights.values()))
    if share < LEAST_SHARE:
        raise CompressionRefusedError(
            f"only {100 * share:.2g} % of the weights of {source.name} are in matrix products; convolutions stay in float"
        )
    beside = target.with_name(f".{target.name}.{os.getpid()}")
    beside.write_bytes(written.SerializeToString())
    beside.replace(target)
