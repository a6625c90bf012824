"""Static int8: scales of activations are set from calibration rows once, so a row alone equals the row in a batch.

Calibration (least and greatest, or a percentile) and granularity (a scale a matrix or a channel) are searched. Of the products, those whose
rounding alone moves the answers most stay in float, twice as many each time until the whole keeps the answers. Without VNNI the range is
reduced.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from platform_assets.stages.compression.graph import write_graph
from platform_assets.stages.compression.measure import UnsupportedGraphError
from platform_assets.stages.compression.methods import CompressionRefusedError
from platform_assets.stages.compression.methods.dynamic import has_vnni, quiet

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from platform_assets.stages.compression.methods import Bench

QUANTISED = ("MatMul", "Gemm", "Conv")
MOVED = 0.01  # mean change in probability that the whole may cause
MOST_TRIED = 16  # products whose sensitivity is found, each quantised alone
CALIBRATED_ON = 128  # rows


class _Reader:
    """Calibration rows, a batch at a time, as onnxruntime's quantiser asks for them."""

    def __init__(self, inputs: dict[str, NDArray[Any]]) -> None:
        rows = min(CALIBRATED_ON, len(next(iter(inputs.values()))))
        self._batches: Iterator[dict[str, NDArray[Any]]] = iter(
            [{name: part[at : at + 32] for name, part in inputs.items()} for at in range(0, rows, 32)]
        )

    def get_next(self) -> dict[str, NDArray[Any]] | None:
        """Give the next batch, or None."""
        return next(self._batches, None)


def write(source: Path, target: Path, option: str, bench: Bench) -> None:
    """Write `target` by the best calibration and granularity, few products left in float; answers that move all the same refuse it."""
    del option
    before = bench.answer(source)
    names = [node.name for node in _named(source).graph.node if node.op_type in QUANTISED]
    if not names:
        raise CompressionRefusedError(f"{source.parent.name} holds no product to quantise")
    forms = [(method, channel) for method in ("minmax", "percentile") for channel in (True, False)]
    tried = {form: _quantise(source, bench, form=form) for form in forms}
    moved = {form: _moved(before, bench, made) for form, made in tried.items()}
    form = min(moved, key=lambda one: moved[one])
    best, left, floats = tried[form], moved[form], 0
    if left > MOVED:
        alone = {name: _moved(before, bench, _quantise(source, bench, form=form, only=[name])) for name in names[:MOST_TRIED]}
        order = sorted(alone, key=lambda name: -alone[name])
        while left > MOVED and floats < len(order) / 2:
            floats = max(1, 2 * floats)
            best = _quantise(source, bench, form=form, floats=order[:floats])
            left = _moved(before, bench, best)
    if left > MOVED:
        raise CompressionRefusedError(
            f"answers of {source.parent.name} move by {left:.3f} in the mean, {MOVED:g} is allowed, with {floats} of {len(names)} "
            "products in float"
        )
    write_graph(onnx.load_from_string(best), target)


def _moved(before: NDArray[Any], bench: Bench, made: bytes) -> float:
    try:
        after = bench.answer(made)
    except UnsupportedGraphError:  # a scale a channel is not to be had for every product
        return float("inf")
    return float(np.abs(before - after).max(axis=1).mean()) if np.isfinite(after).all() else float("inf")


def _named(source: Path) -> onnx.ModelProto:
    model = onnx.load(source)
    for place, node in enumerate(model.graph.node):
        node.name = node.name or f"node{place}"
    return model


def _quantise(source: Path, bench: Bench, *, form: tuple[str, bool], floats: Sequence[str] = (), only: Sequence[str] = ()) -> bytes:
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    method = {"minmax": CalibrationMethod.MinMax, "percentile": CalibrationMethod.Percentile}[form[0]]
    with tempfile.TemporaryDirectory() as folder, quiet():
        given, made = Path(folder) / "given.onnx", Path(folder) / "made.onnx"
        onnx.save(_named(source), given)
        quantize_static(
            given, made, _Reader(bench.inputs), quant_format=QuantFormat.QDQ, op_types_to_quantize=list(QUANTISED), per_channel=form[1],
            reduce_range=not has_vnni(), activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8, nodes_to_exclude=list(floats),
            nodes_to_quantize=list(only),
            calibrate_method=method,
        )  # fmt: skip
        return made.read_bytes()
