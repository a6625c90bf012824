"""scikit-learn's histogram trees, taught by a teacher's probabilities, as one TreeEnsemble node.

A soft target is two weighted rows: one of the second class with the probability as its weight, one of the first with the rest. A missing
value is put below all others while trees are fitted; in the graph it is NaN, and as NaN is greater than no cut it takes the same way.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from platform_assets.stages.compression.graph import ML, OUTPUT, GraphWriter
from platform_assets.stages.compression.students.tables import ENDLESS, TableCode, used_codes, write_features

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray

    from platform_assets.networks.preprocessing import Preprocessing

BELOW = np.float32(-3e38)
SMALLEST_LEAF = 40  # rows
CLASSES = 2
_GREATER, _LEAF_SUM = 3, 1  # BRANCH_GT, SUM of ai.onnx.ml.TreeEnsemble


@dataclass(frozen=True)
class _Tree:
    features: NDArray[np.int64]
    cuts: NDArray[np.float32]
    low: NDArray[np.int64]
    high: NDArray[np.int64]
    is_leaf: NDArray[np.bool_]
    answers: NDArray[np.float32]


@dataclass(frozen=True)
class Forest:
    """Trees of two classes, answering in the logit of the second."""

    code: TableCode
    trees: tuple[_Tree, ...]
    base: float

    @property
    def parameters(self) -> int:
        """Count cuts and answers."""
        return sum(len(tree.answers) for tree in self.trees)

    def logits(self, columns: NDArray[np.float32]) -> NDArray[np.float32]:
        """Answer encoded rows."""
        total = np.full(len(columns), self.base, np.float32)
        rows = np.arange(len(columns))
        for tree in self.trees:
            at = np.zeros(len(columns), np.int64)
            while not tree.is_leaf[at].all():
                with np.errstate(invalid="ignore"):
                    right = columns[rows, tree.features[at]] > tree.cuts[at]
                at = np.where(tree.is_leaf[at], at, np.where(right, tree.high[at], tree.low[at]))
            total += tree.answers[at]
        return np.stack([np.zeros_like(total), total], axis=1)

    def write(self, fitted: Preprocessing) -> onnx.ModelProto:
        """Write the graph: the features, then all trees as one node that answers in probabilities."""
        writer, count = GraphWriter(), len(fitted.numbers)
        asked = [
            (int(f), float(c)) for tree in self.trees for f, c, leaf in zip(tree.features, tree.cuts, tree.is_leaf, strict=True) if not leaf
        ]
        cuts = {
            place: np.unique(np.array([cut for feature, cut in asked if feature == count + place], np.float32))
            for place in {feature - count for feature, _ in asked if feature >= count}
        }
        code = used_codes(self.code, fitted, cuts)
        dates = {place for place, period in enumerate(self.code.periods) if period < ENDLESS}
        if not dates & {feature for feature, _ in asked}:
            code = TableCode(code.codes, np.full_like(code.periods, ENDLESS))
        features = write_features(writer, fitted, code)
        # Its own softmax is wrong for a class that no leaf answers for (onnxruntime 1.31): 0.5 whatever the other one is.
        logits = writer.add(
            "TreeEnsemble", features, domain=ML, n_targets=CLASSES, aggregate_function=_LEAF_SUM, **_attributes(self.trees, self.base)
        )
        writer.add("Softmax", logits, gives=OUTPUT)
        return writer.finish(classes=CLASSES)


def fit_forest(
    code: TableCode, columns: NDArray[np.float32], targets: NDArray[np.float32], *, trees: int, leaves: int, rate: float, seed: int
) -> Forest:
    """Boost on target probabilities [N, 2]."""
    from sklearn.ensemble import HistGradientBoostingClassifier
    from threadpoolctl import threadpool_limits

    model: Any = HistGradientBoostingClassifier(
        max_iter=trees, max_leaf_nodes=leaves, learning_rate=rate, l2_regularization=1.0, early_stopping=False, random_state=seed,
        min_samples_leaf=min(SMALLEST_LEAF, max(1, len(columns) // 20)),
    )  # fmt: skip
    given = np.where(np.isnan(columns), BELOW, columns)
    share = targets[:, 1].astype(np.float64)
    kinds = np.repeat([1, 0], len(given))
    with threadpool_limits(limits=1):
        model.fit(np.concatenate([given, given]), kinds, sample_weight=np.concatenate([share, 1 - share]) + 1e-9)
    found = tuple(_read(stage[0].nodes) for stage in model._predictors)  # noqa: SLF001 - scikit-learn shows its trees nowhere else
    return Forest(code, found, float(model._baseline_prediction.ravel()[0]))  # noqa: SLF001


def _read(nodes: Any) -> _Tree:
    leaf = nodes["is_leaf"].astype(bool)
    # A cut is a double there; the next float32 towards nought or below keeps every float32 on its side.
    cuts = nodes["num_threshold"].astype(np.float32)
    cuts = np.where(cuts.astype(np.float64) > nodes["num_threshold"], np.nextafter(cuts, np.float32(-np.inf)), cuts)
    children = nodes["left"].astype(np.int64), nodes["right"].astype(np.int64)
    return _Tree(nodes["feature_idx"].astype(np.int64), cuts, *children, leaf, nodes["value"].astype(np.float32))


def _attributes(trees: tuple[_Tree, ...], base: float) -> dict[str, Any]:
    """Number splits and leaves of all trees on end, as the operator wants them: a child is a split or a leaf, by its own number."""
    from onnx import TensorProto, helper

    features: list[int] = []
    cuts: list[float] = []
    children: tuple[list[int], list[int]] = ([], [])
    child_is_leaf: tuple[list[int], list[int]] = ([], [])
    answers: list[float] = []
    roots = []
    for number, tree in enumerate(trees):
        splits = np.cumsum(~tree.is_leaf) - 1 + len(features)
        leaves = np.cumsum(tree.is_leaf) - 1 + len(answers)
        roots.append(len(features))
        for node in np.flatnonzero(~tree.is_leaf):
            features.append(int(tree.features[node]))
            cuts.append(float(tree.cuts[node]))
            for side, child in enumerate((tree.high[node], tree.low[node])):
                child_is_leaf[side].append(int(tree.is_leaf[child]))
                children[side].append(int(leaves[child] if tree.is_leaf[child] else splits[child]))
        answers += (tree.answers[tree.is_leaf] + (base if number == 0 else 0.0)).tolist()
    return {
        "tree_roots": roots, "nodes_featureids": features, "nodes_truenodeids": children[0], "nodes_falsenodeids": children[1],
        "nodes_trueleafs": child_is_leaf[0], "nodes_falseleafs": child_is_leaf[1], "leaf_targetids": [1] * len(answers),
        "nodes_splits": helper.make_tensor("", TensorProto.FLOAT, [len(cuts)], np.array(cuts, np.float32).tobytes(), raw=True),
        "nodes_modes": helper.make_tensor("", TensorProto.UINT8, [len(cuts)], bytes([_GREATER] * len(cuts)), raw=True),
        "leaf_weights": helper.make_tensor("", TensorProto.FLOAT, [len(answers)], np.array(answers, np.float32).tobytes(), raw=True),
    }  # fmt: skip
