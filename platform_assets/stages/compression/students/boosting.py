"""Gradient boosting of oblivious trees on a teacher's probabilities (Friedman, 2001; of this form: Prokhorenkova et al., 2018).

All nodes of a level ask the same question, so that a tree is `depth` thresholds and a table of 2^depth answers: a few bytes as constants
of a graph, where scikit-learn's trees, as attributes of one TreeEnsemble node, take 26 bytes a split but run faster one row at a time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from onnx import TensorProto

from platform_assets.stages.compression.graph import OUTPUT, GraphWriter
from platform_assets.stages.compression.students.tables import ENDLESS, TableCode, used_codes, write_features

if TYPE_CHECKING:
    from collections.abc import Callable

    import onnx
    from numpy.typing import NDArray

    from platform_assets.networks.preprocessing import Preprocessing

BINS = 48  # of a feature
PENALTY = 4.0  # second-order weight that holds a leaf back
LEAST = 30.0  # rows on each side of a cut, over all leaves
SUBSAMPLE = 0.6  # of the rows, drawn anew for each tree


@dataclass(frozen=True)
class Oblivious:
    """`features` and `cuts` [trees, depth], `leaves` [trees, 2^depth, classes]; the first question is the highest bit. In logits."""

    code: TableCode
    features: NDArray[np.int64]
    cuts: NDArray[np.float32]
    leaves: NDArray[np.float32]
    base: NDArray[np.float32]

    @property
    def parameters(self) -> int:
        """Count cuts and answers."""
        return int(self.cuts.size + self.leaves.size)

    def logits(self, columns: NDArray[np.float32]) -> NDArray[np.float32]:
        """Answer encoded rows."""
        with np.errstate(invalid="ignore"):
            bits = columns[:, self.features] > self.cuts
        powers = 2 ** np.arange(self.cuts.shape[1])[::-1]
        found = np.take_along_axis(self.leaves[None], (bits @ powers)[:, :, None, None], axis=2)[:, :, 0]
        answer: NDArray[np.float32] = found.sum(1) + self.base
        return answer

    def write(self, fitted: Preprocessing) -> onnx.ModelProto:
        """Write the graph: gather, compare, one product that gives each tree's place, gather, sum."""
        (trees, depth), classes = self.cuts.shape, self.leaves.shape[2]
        count = len(fitted.numbers)
        cuts = {
            place: np.unique(self.cuts[self.features == count + place])
            for place in range(len(fitted.categories))
            if (self.features == count + place).any()
        }
        dates = {place for place, period in enumerate(self.code.periods) if period < ENDLESS}
        code = used_codes(self.code, fitted, cuts)
        if not dates & set(self.features.ravel().tolist()):
            code = TableCode(code.codes, np.full_like(code.periods, ENDLESS))
        writer = GraphWriter()
        given = write_features(writer, fitted, code)
        asked = writer.add("Gather", given, writer.small(self.features.ravel(), to=TensorProto.INT64), axis=1)
        bits = writer.add("Cast", writer.add("Greater", asked, writer.constant(self.cuts.ravel())), to=TensorProto.FLOAT)
        # One column a tree: kron(eye(trees), powers), made when the graph is loaded rather than stored.
        square = writer.add("EyeLike", writer.add("ConstantOfShape", writer.constant(np.array([trees, trees]))), dtype=TensorProto.FLOAT)
        powers = writer.constant((2.0 ** np.arange(depth)[::-1]).astype(np.float32)[None, :, None])
        places = writer.add("Mul", writer.add("Unsqueeze", square, writer.constant(np.array([1]))), powers)
        places = writer.add("Reshape", places, writer.constant(np.array([trees * depth, trees])))
        step = writer.constant(np.array(2**depth, np.float32))
        zero = writer.constant(np.array(0, np.float32))
        starts = writer.add("Range", zero, writer.constant(np.array(trees * 2**depth, np.float32)), step)
        at = writer.add("Cast", writer.add("Gemm", bits, places, starts), to=TensorProto.INT32)
        leaves = (self.leaves + self.base / trees).reshape(-1, classes)
        table = writer.constant(np.ascontiguousarray(leaves))
        if classes == 2:  # noqa: PLR2004 - of two classes only the difference counts
            single = writer.constant(np.ascontiguousarray(leaves[:, 1:] - leaves[:, :1]))
            table = writer.add("Pad", single, writer.constant(np.array([0, 1, 0, 0])))
        total = writer.add("ReduceSum", writer.add("Gather", table, at), writer.constant(np.array([1])), keepdims=0)
        writer.add("Softmax", total, gives=OUTPUT)
        return writer.finish(classes=classes)


def fit_oblivious(
    code: TableCode, columns: NDArray[np.float32], targets: NDArray[np.float32], *, trees: int, depth: int, rate: float, seed: int,
    stop: Callable[[], bool] = lambda: False,
) -> Oblivious:  # fmt: skip
    """Boost on target probabilities [N, classes]; it ends with fewer trees once `stop` says so, one at least."""
    rng = np.random.default_rng(seed)
    rows, classes = targets.shape
    edges = [_edges(column) for column in columns.T]
    # NaN lies in bin 0, as `NaN > cut` is false in the graph.
    binned = np.stack([np.where(np.isnan(c), 0, np.searchsorted(e, c, side="left")) for c, e in zip(columns.T, edges, strict=True)])
    binned = binned.astype(np.int64)
    mean = targets.mean(0).clip(1e-4)
    base = np.log(mean / mean.sum()).astype(np.float32)
    said = np.tile(base, (rows, 1))
    found: list[tuple[list[int], list[float], NDArray[np.float32]]] = []
    learnt = range(1, classes) if classes == 2 else range(classes)  # noqa: PLR2004 - of two classes only the difference counts
    for _ in range(trees):
        share = np.exp(said - said.max(1, keepdims=True))
        share /= share.sum(1, keepdims=True)
        drawn = np.flatnonzero(rng.random(rows) < SUBSAMPLE) if rows > BINS * LEAST else np.arange(rows)
        gradient, curve = (share - targets)[drawn], np.maximum(share * (1 - share), 1e-4)[drawn]
        features, cuts, leaf = _grow(binned[:, drawn], edges, gradient, curve, depth=depth, learnt=learnt)
        answers = np.zeros((2**depth, classes), np.float32)
        for kind in learnt:
            total = np.bincount(leaf, weights=gradient[:, kind], minlength=2**depth)
            weight = np.bincount(leaf, weights=curve[:, kind], minlength=2**depth)
            answers[:, kind] = -rate * total / (weight + PENALTY)
        place = np.zeros(rows, np.int64)
        for feature, cut in zip(features, cuts, strict=True):
            place = 2 * place + (binned[feature] > cut)
        said += answers[place]
        found.append((features, [float(edges[f][c]) for f, c in zip(features, cuts, strict=True)], answers))
        if stop():
            break
    parts = [np.array([tree[place] for tree in found]) for place in range(3)]
    return Oblivious(code, parts[0].astype(np.int64), parts[1].astype(np.float32), parts[2].astype(np.float32), base)


def _edges(column: NDArray[np.float32]) -> NDArray[np.float32]:
    """Midways between neighbouring values, few enough; a column of one value has one cut that is never passed."""
    known = column[np.isfinite(column)]
    values = np.unique(known)
    if len(values) < 2:  # noqa: PLR2004 - nothing to cut
        return np.array([np.float32(math.inf)])
    if len(values) > BINS:
        values = np.unique(np.quantile(known, np.linspace(0, 1, BINS + 1)).astype(np.float32))
    return ((values[:-1] + values[1:]) / 2).astype(np.float32)


def _grow(
    binned: NDArray[np.int64], edges: list[NDArray[np.float32]], gradient: NDArray[np.float32], curve: NDArray[np.float32], *,
    depth: int, learnt: range,
) -> tuple[list[int], list[int], NDArray[np.int64]]:  # fmt: skip
    leaf = np.zeros(binned.shape[1], np.int64)
    features, cuts = [], []
    for level in range(depth):
        best = (-math.inf, 0, 0)
        for feature, column in enumerate(binned):
            size = len(edges[feature]) + 1
            place = leaf * size + column
            gain = np.zeros(size - 1)
            for kind in learnt:
                left, weight = (
                    np.bincount(place, weights=values[:, kind], minlength=size << level).reshape(-1, size).cumsum(1)
                    for values in (gradient, curve)
                )
                right, rest = left[:, -1:] - left, weight[:, -1:] - weight
                gain += (left**2 / (weight + PENALTY) + right**2 / (rest + PENALTY))[:, :-1].sum(0)
            passed = np.bincount(column, minlength=size)[::-1].cumsum()[::-1][1:]
            gain[(passed < LEAST) | (passed > len(leaf) - LEAST)] = -math.inf
            cut = int(gain.argmax())
            if gain[cut] > best[0]:
                best = (float(gain[cut]), feature, cut)
        features.append(best[1])
        cuts.append(best[2])
        leaf = 2 * leaf + (binned[best[1]] > best[2])
    return features, cuts, leaf
