"""Dynamic int8: activations get their scale at each call, from the whole batch. `dynamic` for all products, `dynamic-c` per channel.

A row's answer then leans on its neighbours, by up to 0.02 in probability here, so the search refuses most of what this gives; it is tried
because where it does not lean, it is measured like the rest. Without VNNI the range is reduced: full-range products saturate there.
"""

from __future__ import annotations

import io
import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING

import onnx

from platform_assets.stages.compression.graph import write_graph
from platform_assets.stages.compression.methods import CompressionRefusedError

if TYPE_CHECKING:
    from platform_assets.stages.compression.methods import Bench


def has_vnni() -> bool:
    """Say whether this CPU multiplies eight-bit numbers without saturation (AVX-512 VNNI or AVX-VNNI)."""
    path = Path("/proc/cpuinfo")
    flags = next((line.split() for line in path.read_text().splitlines() if line.startswith("flags")), []) if path.exists() else []
    return "avx512_vnni" in flags or "avx_vnni" in flags


@contextmanager
def quiet() -> Iterator[None]:
    """Keep what onnxruntime's quantiser prints, and warns of on the root logger, to itself."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(before)


def write(source: Path, target: Path, option: str, bench: Bench) -> None:
    """Write `target`; a graph without matrix products is refused."""
    del bench
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with tempfile.TemporaryDirectory() as folder, quiet():
        made = Path(folder) / "dynamic.onnx"
        quantize_dynamic(
            source, made, per_channel=option == "c", reduce_range=not has_vnni(), weight_type=QuantType.QInt8,
            op_types_to_quantize=["MatMul", "Gemm"],
        )  # fmt: skip
        model = onnx.load(made)
    if not any(node.op_type in ("MatMulInteger", "DynamicQuantizeMatMul", "DynamicQuantizeLinear") for node in model.graph.node):
        raise CompressionRefusedError(f"{source.parent.name} holds no matrix product with constant weights to quantise")
    write_graph(model, target)
