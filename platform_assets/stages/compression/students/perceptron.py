"""The student of tables and pictures: one wide sum of encoded numbers, looked-up categories and pixels, then few layers.

Numbers become hinges `clip(slope * (x - start), 0, 1)`: any function that is straight between the quantiles is a sum of them. A missing
value is put far below all others, where all hinges but one of its own are nought. Dates are sines of year and week. Of the categories
only those values are kept that move the teacher's answer; all others share the unknown row, which is nought, so that a table without
them is exactly the same function.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch
from onnx import TensorProto
from torch import Tensor, nn

from platform_assets.networks.encoding import DAYS_A_WEEK, DAYS_A_YEAR
from platform_assets.stages.compression.graph import OUTPUT, GraphWriter, affine, look_up

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray

    from platform_assets.networks.preprocessing import NumberColumn, Preprocessing

FAR = 1000.0  # ranges of the training rows below which a missing value is put; its own hinge opens half way there


class Perceptron(nn.Module):
    """`kept` are rows of the common table of categories; `bins` the hinges that a number has at most."""

    slopes: Tensor
    shifts: Tensor
    turns: Tensor
    phases: Tensor
    far: Tensor
    rows: Tensor

    def __init__(
        self, preprocessing: Preprocessing, *, classes: int, width: int, depth: int, bins: int = 12, kept: tuple[int, ...] = ()
    ) -> None:
        super().__init__()
        self.kept, self.classes = kept, classes
        self.image_rate = 1.0 / preprocessing.image_scale
        slopes, shifts = hinges(preprocessing.numbers, bins=bins)
        turns, phases = cycles(preprocessing.numbers)
        rows = np.zeros(max(1, sum(column.size for column in preprocessing.categories)), np.int64)
        rows[list(kept)] = np.arange(1, len(kept) + 1)
        fitted = {
            "slopes": slopes, "shifts": shifts, "turns": turns, "phases": phases, "rows": rows,
            "far": np.array([_far(column) for column in preprocessing.numbers], np.float32),
        }  # fmt: skip
        for name, value in fitted.items():
            self.register_buffer(name, torch.from_numpy(value), persistent=False)
        self.first = nn.Linear(slopes.shape[1] + turns.shape[1] + preprocessing.image_size, width)
        self.table = nn.Embedding(1 + len(kept), width, padding_idx=0) if kept else None
        if self.table is not None:
            nn.init.normal_(self.table.weight[1:], std=0.1)
        self.hidden = nn.ModuleList(nn.Linear(width, width) for _ in range(depth - 1))
        self.head = nn.Linear(width, classes)

    def features(self, numeric: Tensor, ids: Tensor, image: Tensor) -> Tensor:
        """Return the last hidden layer [N, width]."""
        parts = []
        if numeric.shape[1]:
            known = torch.where(torch.isnan(numeric), self.far, numeric)
            parts.append((known @ self.slopes + self.shifts).clamp(0.0, 1.0))
            if self.turns.shape[1]:
                parts.append((known @ self.turns + self.phases).sin())
        if image.shape[1]:
            parts.append(image * self.image_rate)
        hidden = self.first(torch.cat(parts, dim=1)) if parts else self.first.bias
        if self.table is not None:
            hidden = hidden + self.table(self.rows[ids]).sum(1)
        hidden = torch.relu(hidden)
        for layer in self.hidden:
            hidden = torch.relu(layer(hidden))
        return hidden

    def forward(self, numeric: Tensor, ids: Tensor, image: Tensor) -> Tensor:
        """Return logits [N, classes]."""
        logits: Tensor = self.head(self.features(numeric, ids, image))
        return logits

    def prunable(self) -> list[nn.Linear]:
        """Layers whose output channels may be cut; the first one's are tied to the table of categories."""
        return [layer for layer in (*((self.first,) if self.table is None else ()), *self.hidden) if isinstance(layer, nn.Linear)]

    def write(self, preprocessing: Preprocessing) -> onnx.ModelProto:
        """Write the graph: some dozen nodes with everything that could be folded folded."""
        writer = GraphWriter()
        weight, hidden = _array(self.first.weight).T, None
        bias: str | NDArray[np.float32] = _array(self.first.bias)
        if preprocessing.numbers:
            given = writer.input("numeric", width=len(preprocessing.numbers))
            known = writer.add("Where", writer.add("IsNaN", given), writer.constant(_array(self.far)), given)
            steps = writer.add("Clip", _spread(writer, known, _array(self.slopes), add=_array(self.shifts)), *_unit(writer))
            count, more = self.slopes.shape[1], self.turns.shape[1]
            bias = hidden = affine(writer, steps, weight[:count], add=bias)
            if more:
                waves = writer.add("Sin", _spread(writer, known, _array(self.turns), add=_array(self.phases)))
                bias = hidden = affine(writer, waves, weight[count : count + more], add=hidden)
            weight = weight[count + more :]
        if preprocessing.image_size:
            pixels = writer.input("image", width=preprocessing.image_size)
            bias = hidden = affine(writer, pixels, weight * np.float32(self.image_rate), add=bias)
        if self.table is not None:
            values = {row: place for place, row in enumerate(self.kept, start=1)}
            rows = writer.add(
                "Gather", writer.constant(_array(self.table.weight)), look_up(writer, preprocessing, values=values, default=0)
            )
            looked_up = writer.add("ReduceSum", rows, writer.constant(np.array([1])), keepdims=0)
            hidden = writer.add("Add", looked_up, hidden if hidden is not None else writer.constant(_array(self.first.bias)))
        assert hidden is not None
        hidden = writer.add("Relu", hidden)
        for layer in self.hidden:
            assert isinstance(layer, nn.Linear)
            hidden = writer.add("Relu", affine(writer, hidden, _array(layer.weight).T, add=_array(layer.bias)))
        logits = affine(writer, hidden, _array(self.head.weight).T, add=_array(self.head.bias))
        writer.add("Softmax", logits, gives=OUTPUT)
        return writer.finish(classes=self.classes)


def hinges(columns: tuple[NumberColumn, ...], *, bins: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Slopes [D, M] and shifts [M] of the hinges of all numbers: at most `bins` a number, and one for missing values."""
    found: list[tuple[int, float, float]] = []
    for place, column in enumerate(columns):
        edges = np.asarray(column.edges)
        if not column.is_date:
            edges = edges[np.unique(np.linspace(0, len(edges) - 1, min(bins, len(edges) - 1) + 1).round().astype(int))]
            found += [(place, 1 / (high - low), -low / (high - low)) for low, high in pairwise(edges)]
        half = FAR / 2 * _range(column)
        found.append((place, -1 / half, (edges[0] - half) / half))
    slopes, shifts = np.zeros((len(columns), len(found)), np.float32), np.zeros(len(found), np.float32)
    for number, (place, slope, shift) in enumerate(found):
        slopes[place, number], shifts[number] = slope, shift
    return slopes, shifts


def cycles(columns: tuple[NumberColumn, ...]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Turns [D, M] and phases [M] whose sines are sine and cosine of year and week of every date."""
    dates = [place for place, column in enumerate(columns) if column.is_date]
    turns, phases = np.zeros((len(columns), 4 * len(dates)), np.float32), np.zeros(4 * len(dates), np.float32)
    for number, place in enumerate(dates):
        for at, span in enumerate((DAYS_A_YEAR, DAYS_A_WEEK)):
            turns[place, 4 * number + 2 * at : 4 * number + 2 * at + 2] = 2 * math.pi / span
            phases[4 * number + 2 * at + 1] = math.pi / 2
    return turns, phases


def _spread(writer: GraphWriter, given: str, weight: NDArray[np.float32], *, add: NDArray[np.float32]) -> str:
    """Add `given @ weight + add` where each column of the weight has one number: the rest of it is made when the graph is loaded."""
    rows = weight.shape[0]
    chosen = writer.small(np.abs(weight).argmax(0), to=TensorProto.INT64)
    units = writer.add("OneHot", chosen, writer.constant(np.array(rows)), writer.constant(np.array([0, 1], np.float32)), axis=0)
    whole = writer.add("Mul", units, writer.constant(weight[np.abs(weight).argmax(0), np.arange(weight.shape[1])]))
    return writer.add("Gemm", given, whole, writer.constant(add))


def _range(column: NumberColumn) -> float:
    return max(column.edges[-1] - column.edges[0], 1e-6)


def _far(column: NumberColumn) -> float:
    return column.edges[0] - FAR * _range(column)


def _unit(writer: GraphWriter) -> tuple[str, str]:
    return writer.constant(np.array(0, np.float32)), writer.constant(np.array(1, np.float32))


def _array(tensor: Tensor) -> NDArray[np.float32]:
    found: NDArray[np.float32] = tensor.detach().cpu().numpy()
    return found
