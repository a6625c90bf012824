"""The fast model of a replay: gradient-boosted trees on one thread, trained from scratch, or warm: its leaves learnt anew on new rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from platform_assets.errors import StageError

if TYPE_CHECKING:
    from platform_assets.stages.replay.stream import Kind

_TREES = 100
_SMALLEST = 1e-6  # a probability of zero would make one mistake cost infinity
_RATE = 0.1  # share of a Newton step that each tree takes in a refresh; 0.2 and 0.3 follow faster and swing more
_DAMPING = 1.0  # rows that count against a step, as in training: sure answers make it large
_IN_TEXT = ("leaf_value", "leaf_count")
_QUIET = {"verbosity": -1, "num_threads": 1}


@dataclass(frozen=True, eq=False)
class Model:
    """Trees and what their leaves say. `leaves`: value [trees, leaves]; `weight`: rows that each leaf has been learnt on, fading."""

    trees: Any
    kind: Kind
    classes: int
    leaves: np.ndarray
    weight: np.ndarray


def warm_up() -> None:
    """Load the library, so that no training is billed for it."""
    _library()


def fit(values: np.ndarray, targets: np.ndarray, *, kind: Kind, classes: int) -> Model:
    """Train from scratch: 100 trees of 31 leaves, the library's defaults, on one thread; the same rows give the same model."""
    boosting = _library()
    settings: dict[str, Any] = {**_QUIET, "objective": kind, "force_col_wise": True, "deterministic": True, "seed": 7}
    if kind == "multiclass":
        settings["num_class"] = classes
    trees = boosting.train(settings, boosting.Dataset(values, targets, params=_QUIET), _TREES)
    return Model(trees, kind, classes, *_read_leaves(trees))


def _read_leaves(trees: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return value and row count of each leaf, [trees, leaves], from the library's own text form of the model."""
    lines = trees.model_to_string().splitlines()
    found = [[np.array(line.split("=", 1)[1].split(), np.float64) for line in lines if line.startswith(f"{name}=")] for name in _IN_TEXT]
    width = max(len(leaf) for leaf in found[0])
    values, counts = (np.stack([np.pad(leaf, (0, width - len(leaf))) for leaf in part]) for part in found)
    return values, counts


def find_leaves(model: Model, values: np.ndarray) -> np.ndarray:
    """Return which leaf of each tree a row falls into, [trees, rows]: the dear part of an answer, the same after a refresh."""
    found = model.trees.predict(values, pred_leaf=True, num_threads=1).astype(np.int32)
    return np.ascontiguousarray(found.reshape(len(values), -1).T)


def answer(model: Model, leaves: np.ndarray) -> np.ndarray:
    """Return amounts [rows], or probabilities [rows] of the second of two classes or [rows, classes], from `find_leaves`."""
    return _link(_sum_up(model.leaves, leaves, outputs=_outputs(model)), model.kind)


def refresh(model: Model, leaves: np.ndarray, targets: np.ndarray, *, keep: float) -> Model:
    """Return the model with the same trees, each leaf moved towards what these rows say, as far as their number bears.

    A part of a Newton step a leaf, tree after tree as boosting does it; a leaf's older rows fade by `keep`, so one that few rows reach
    moves little.
    """
    outputs = _outputs(model)
    scores = _sum_up(model.leaves, leaves, outputs=outputs)
    learnt, width = model.leaves.copy(), model.leaves.shape[1]
    weight = model.weight * keep
    wanted = _indicate(targets, outputs)
    for tree, places in enumerate(leaves):
        output = tree % outputs
        slope, curve = _slopes(scores, wanted, output, kind=model.kind)
        counts = np.bincount(places, minlength=width)
        slopes = np.bincount(places, weights=slope, minlength=width)
        curves = counts if curve is None else np.bincount(places, weights=curve, minlength=width)
        step = -_RATE * slopes / (curves + _DAMPING) * counts / np.maximum(weight[tree] + counts, 1.0)
        learnt[tree] += step
        weight[tree] += counts
        scores[:, output] += step[places]
    return Model(model.trees, model.kind, model.classes, learnt, weight)


def _outputs(model: Model) -> int:
    return model.classes if model.kind == "multiclass" else 1


def _sum_up(values: np.ndarray, leaves: np.ndarray, *, outputs: int) -> np.ndarray:
    picked = np.take_along_axis(values, leaves, axis=1)
    summed: np.ndarray = picked.reshape(-1, outputs, leaves.shape[1]).sum(axis=0).T.copy()
    return summed


def _link(scores: np.ndarray, kind: Kind) -> np.ndarray:
    if kind == "regression":
        return scores[:, 0]
    if kind == "binary":
        return 1 / (1 + np.exp(-scores[:, 0]))
    shares = np.exp(scores - scores.max(axis=1, keepdims=True))
    normed: np.ndarray = shares / shares.sum(axis=1, keepdims=True)
    return normed


def _indicate(targets: np.ndarray, outputs: int) -> np.ndarray:
    return targets[:, None] if outputs == 1 else (targets[:, None] == np.arange(outputs)).astype(np.float64)


def _slopes(scores: np.ndarray, wanted: np.ndarray, output: int, *, kind: Kind) -> tuple[np.ndarray, np.ndarray | None]:
    """First and second derivative of the loss by one output's score; None: 1 everywhere."""
    if kind == "regression":
        return scores[:, 0] - wanted[:, 0], None
    found = _link(scores, kind)
    share = found if kind == "binary" else found[:, output]
    return share - wanted[:, output], share * (1 - share)


def losses(answers: np.ndarray, targets: np.ndarray, *, kind: Kind) -> np.ndarray:
    """Loss of each row: squared error of amounts, negative log probability of the right class."""
    if kind == "regression":
        squared: np.ndarray = (answers - targets) ** 2
        return squared
    shares = np.column_stack([1 - answers, answers]) if kind == "binary" else answers
    right = shares[np.arange(len(targets)), targets.astype(int)]
    return -np.log(np.maximum(right, _SMALLEST))


def hits(answers: np.ndarray, targets: np.ndarray, *, kind: Kind) -> np.ndarray:
    """What a score is the mean of: 1 for a right class and 0 for a wrong one, minus the squared error of an amount."""
    if kind == "regression":
        return -((answers - targets) ** 2)
    chosen = (answers > 0.5) if kind == "binary" else answers.argmax(axis=1)  # noqa: PLR2004
    return (chosen == targets).astype(np.float64)


def _library() -> Any:
    try:
        import lightgbm
    except OSError as error:  # the wheel wants the system's OpenMP runtime
        raise StageError(f"LightGBM cannot be loaded ({error}); on Debian, apt-get install libgomp1 brings what it needs") from error
    return lightgbm
