"""How good probabilities are: AUROC, accuracy, log loss. Pure numpy, used by every stage that judges a model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

METRICS = {"binary": ("auroc", "accuracy", "log_loss"), "multiclass": ("accuracy", "log_loss")}
HIGHER_IS_BETTER = {"auroc": True, "accuracy": True, "log_loss": False}
SMALLEST = 1e-15  # a probability of zero would make one mistake cost infinity


def auroc(positive: NDArray[np.bool_], *, scores: NDArray[np.floating]) -> float:
    """Area under the ROC curve by ranks, ties counted half (Mann and Whitney, 1947); NaN where one class is absent."""
    positives = int(np.count_nonzero(positive))
    negatives = len(positive) - positives
    if not positives or not negatives:
        return float("nan")
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    mean_rank = np.cumsum(counts) - (counts - 1) / 2
    rank_sum = float(mean_rank[place][np.asarray(positive, dtype=bool)].sum())
    return (rank_sum - positives * (positives + 1) / 2) / (positives * negatives)


def accuracy(labels: NDArray[np.integer], *, probabilities: NDArray[np.floating]) -> float:
    """Share of rows whose most probable class is right."""
    return float(np.mean(probabilities.argmax(axis=1) == labels))


def log_loss(labels: NDArray[np.integer], *, probabilities: NDArray[np.floating]) -> float:
    """Mean negative log probability of the right class, in nats."""
    share = probabilities.astype(np.float64)
    share = share / share.sum(axis=1, keepdims=True)
    return float(-np.log(np.clip(share[np.arange(len(labels)), labels], SMALLEST, 1.0)).mean())


def measure(labels: NDArray[np.integer], *, probabilities: NDArray[np.floating], kind: str) -> dict[str, float]:
    """Every metric of a target's kind, undefined ones (AUROC of one class) left out: labels [N] as class indices, probabilities [N, C]."""
    found = {"accuracy": accuracy(labels, probabilities=probabilities), "log_loss": log_loss(labels, probabilities=probabilities)}
    if kind == "binary":
        found["auroc"] = auroc(labels == 1, scores=probabilities[:, 1])
    return {name: found[name] for name in METRICS[kind] if np.isfinite(found[name])}


def leading(metrics: dict[str, float], *, kind: str) -> float:
    """Value of the metric that leads for this kind, 0 where it is undefined."""
    return metrics.get(METRICS[kind][0], 0.0)
