"""Peer of `falaj bench orchestration`: load, train, register as a ZenML pipeline on its local stack, cache off. `python zenml_train.py`, twice."""

from typing import Annotated

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from zenml import Model, log_metadata, pipeline, step


@step
def load() -> tuple[Annotated[np.ndarray, "rows"], Annotated[np.ndarray, "labels"]]:
    rows, labels = load_digits(return_X_y=True)
    return rows, labels


@step
def train(rows: np.ndarray, labels: np.ndarray) -> Annotated[ClassifierMixin, "model"]:
    return LogisticRegression(max_iter=50).fit(rows, labels)


@step
def register(model: ClassifierMixin, rows: np.ndarray, labels: np.ndarray) -> float:
    accuracy = float(model.score(rows, labels))
    log_metadata({"accuracy": accuracy}, infer_model=True)
    return accuracy


@pipeline(enable_cache=False, model=Model(name="digits"))
def train_and_register() -> None:
    rows, labels = load()
    register(train(rows, labels), rows, labels)


if __name__ == "__main__":
    train_and_register()
