"""Weights stored in fewer bits and unpacked when the graph is loaded: `pack-8`, `pack-4`, `pack-16`. Small files, as fast as float.

A stored matrix is Cast and multiplied by its scales; both nodes have constant inputs alone, so onnxruntime folds them at load (its
constant folding leaves DequantizeLinear alone, which would then be paid for at each call). Nothing is rounded while answering: a row's
answer depends neither on its neighbours nor on what the CPU has for eight-bit products. Whatever moves the answers by more than its
share stays in float: each constant is tried by itself, the largest first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from platform_assets.stages.compression.graph import IR_VERSION, OPSET, serialise, write_graph
from platform_assets.stages.compression.methods import CompressionRefusedError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from platform_assets.stages.compression.methods import Bench

LEAST = 24  # numbers below which the nodes weigh more than what is saved
MOVED = {16: 0.002, 8: 0.005, 4: 0.02}  # mean change in probability that one constant may cause
SHRINKS = (1.0, 0.9, 0.8, 0.7, 0.6)  # of the largest weight that the grid reaches to: the one of least squared error is taken
_FOUR_BITS, _HALF = 4, 16
_LARGE = 4096  # numbers from which eight bits get a scale a channel, too


def write(source: Path, target: Path, option: str, bench: Bench) -> None:
    """Write `target` with every constant packed that bears it; none is a refusal."""
    bits = int(option)
    model = onnx.load(source)
    _raise_opset(model)
    before, packed = bench.answer(source), 0
    sizes = {one.name: int(np.prod(one.dims)) for one in model.graph.initializer if one.data_type == TensorProto.FLOAT}
    for name in sorted(sizes, key=lambda one: -sizes[one]):
        if sizes[name] < LEAST:
            break
        tried = _pack(model, name, bits=bits)
        if len(serialise(tried)) < len(serialise(model)) and _moved(before, bench.answer(serialise(tried))) <= MOVED[bits]:
            model, packed = tried, packed + 1
    if not packed:
        raise CompressionRefusedError(f"no constant of {source.parent.name} bears {bits} bits, or gets smaller by them")
    write_graph(model, target)


def _moved(before: NDArray[Any], after: NDArray[Any]) -> float:
    return float(np.abs(before - after).max(axis=1).mean()) if np.isfinite(after).all() else float("inf")


def _pack(model: onnx.ModelProto, name: str, *, bits: int) -> onnx.ModelProto:
    packed = onnx.ModelProto()
    packed.CopyFrom(model)
    graph = packed.graph
    place = next(at for at, one in enumerate(graph.initializer) if one.name == name)
    weight = numpy_helper.to_array(graph.initializer[place])
    stored, scaled = f"{name}_", f"{name}__"
    del graph.initializer[place]
    if bits == _HALF or weight.ndim == 1:  # a vector of biases is small and is added to everything
        graph.initializer.append(numpy_helper.from_array(weight.astype(np.float16), stored))
        nodes = [helper.make_node("Cast", [stored], [name], to=TensorProto.FLOAT)]
    else:
        axes = _channel_axes(packed, name, weight) if bits == _FOUR_BITS or weight.size > _LARGE else ()  # scales weigh too
        codes, steps = round_to_grid(weight, bits=bits, axes=axes)
        nodes = [helper.make_node("Cast", [stored], [f"{name}."], to=TensorProto.FLOAT)]
        if steps.size >= LEAST:
            graph.initializer.append(numpy_helper.from_array(steps.astype(np.float16), f"{name}:"))
            nodes.append(helper.make_node("Cast", [f"{name}:"], [scaled], to=TensorProto.FLOAT))
        else:
            graph.initializer.append(numpy_helper.from_array(steps, scaled))
        graph.initializer.append(_store(codes, stored, bits=bits))
        nodes.append(helper.make_node("Mul", [f"{name}.", scaled], [name]))
    rest = list(graph.node)
    del graph.node[:]
    graph.node.extend([*nodes, *rest])
    return packed


def round_to_grid(weight: NDArray[np.float32], *, bits: int, axes: Sequence[int]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Return codes and the step of each channel along `axes`; of a few steps the one of least squared error."""
    most = 2 ** (bits - 1) - 1
    others = tuple(axis for axis in range(weight.ndim) if axis not in axes)
    largest = np.maximum(np.abs(weight).max(axis=others, keepdims=True), 1e-12)
    best: tuple[NDArray[Any], NDArray[Any], NDArray[Any]] | None = None
    for shrink in SHRINKS:
        step = (largest * shrink / most).astype(np.float32)
        codes = np.clip(np.rint(weight / step), -most, most)
        error = ((codes * step - weight) ** 2).sum(axis=others, keepdims=True)
        if best is None:
            best = codes, step, error
        else:
            better = error < best[2]
            best = np.where(better, codes, best[0]), np.where(better, step, best[1]), np.where(better, error, best[2])
    assert best is not None
    return best[0].astype(np.int8), (best[1] if axes else best[1].reshape(())).astype(np.float32)


def _store(codes: NDArray[np.int8], name: str, *, bits: int) -> onnx.TensorProto:
    if bits != _FOUR_BITS:
        return numpy_helper.from_array(codes, name)
    flat = codes.ravel().astype(np.uint8) & 15
    flat = np.append(flat, np.uint8(0)) if len(flat) % 2 else flat
    return helper.make_tensor(name, TensorProto.INT4, codes.shape, (flat[::2] | flat[1::2] << 4).tobytes(), raw=True)


def _channel_axes(model: onnx.ModelProto, name: str, weight: NDArray[Any]) -> tuple[int, ...]:
    """Axes of a weight's output channels: the first of a convolution and of a matrix that is used turned over, else the last."""
    if weight.ndim < 2:  # noqa: PLR2004
        return ()
    turned = any(
        node.op_type == "Gemm" and name in node.input and any(a.name == "transB" and a.i for a in node.attribute)
        for node in model.graph.node
    )
    return (0,) if turned or weight.ndim == 4 else (weight.ndim - 1,)  # noqa: PLR2004


def _raise_opset(model: onnx.ModelProto) -> None:
    """Four-bit numbers came with opset 21; no operator that our graphs use changed its meaning from 20 to it."""
    for entry in model.opset_import:
        if not entry.domain and entry.version < OPSET:
            entry.version = OPSET
    model.ir_version = IR_VERSION
