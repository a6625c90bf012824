"""Peer of `falaj bench orchestration`: load, train, register as a Flyte workflow, executed locally. `python flyte_train.py FOLDER`, twice."""

import pickle
import sys
from pathlib import Path

import numpy as np
from flytekit import task, workflow
from flytekit.types.file import FlyteFile


@task
def load() -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import load_digits

    return load_digits(return_X_y=True)


@task
def train(rows: np.ndarray, labels: np.ndarray) -> FlyteFile:
    from sklearn.linear_model import LogisticRegression

    path = Path("model.pkl").absolute()
    path.write_bytes(pickle.dumps(LogisticRegression(max_iter=50).fit(rows, labels)))
    return FlyteFile(str(path))


@task
def register(model: FlyteFile, rows: np.ndarray, labels: np.ndarray, folder: str) -> float:
    """Flyte local has no registry: the model goes into a folder."""
    fitted = pickle.loads(Path(model).read_bytes())
    target = Path(folder) / f"model-{len(list(Path(folder).glob('model-*')))}.pkl"
    target.write_bytes(pickle.dumps(fitted))
    return float(fitted.score(rows, labels))


@workflow
def train_and_register(folder: str) -> float:
    rows, labels = load()
    return register(model=train(rows=rows, labels=labels), rows=rows, labels=labels, folder=folder)


if __name__ == "__main__":
    print(train_and_register(folder=sys.argv[1]))
