"""The fast model of a replay: gradient-boosted trees on one thread, trained from scratch, or warm: its leaves learnt anew on new rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from platform_assets.errors import StageError

if TYPE_CHECKING:
    from platform_assets.stages.replay.stream import Kind

_TREES = 100
_SMALLEST = 1e-6  # a probability of zero would make one mistake cost infinity
_QUIET = {"verbosity": -1, "num_threads": 1}
_OBJECTIVES = {"binary": "binary", "multiclass": "multiclass", "regression": "regression"}


def warm_up() -> None:
    """Load the library, so that no training is billed for it."""
    _library()


def fit(values: np.ndarray, targets: np.ndarray, *, kind: Kind, classes: int) -> Any:
    """Train from scratch: 100 trees of 31 leaves, the library's defaults, on one thread; the same rows give the same model."""
    boosting = _library()
    settings: dict[str, Any] = {**_QUIET, "objective": _OBJECTIVES[kind], "force_col_wise": True, "deterministic": True, "seed": 7}
    if kind == "multiclass":
        settings["num_class"] = classes
    return boosting.train(settings, boosting.Dataset(values, targets, params={"verbosity": -1}), _TREES)


def refresh(model: Any, values: np.ndarray, targets: np.ndarray, *, keep: float) -> Any:
    """Return the model with the same trees, each leaf's value `keep` of the old one and the rest learnt on these rows."""
    return model.refit(values, targets, decay_rate=keep, **_QUIET)


def answer(model: Any, values: np.ndarray) -> np.ndarray:
    """Return amounts [rows], or probabilities [rows] of the second of two classes or [rows, classes]."""
    found: np.ndarray = model.predict(values, num_threads=1)
    return found


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
