"""How a release does in each group of rows: the values of a category, on labelled rows. Which groups matter is not said here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from platform_assets.measures import measure

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyarrow as pa

MOST_VALUES = 12  # the largest ones of a column
FEWEST_ROWS = 30  # a figure of fewer is chance


def measure_groups(
    rows: pa.Table, *, labels: np.ndarray, probabilities: np.ndarray, columns: Sequence[str], kind: str, leading: str
) -> list[dict[str, Any]]:
    """Return {column, value, rows, share, leading, accuracy, positive} of each group, the largest first in each column.

    labels [N] as class indices, probabilities [N, classes]. `leading` is None where it is undefined (AUROC of one class), `positive` is
    the share that is predicted positive, None for more than two classes.
    """
    found = []
    for column in columns:
        values = np.array(["(missing)" if one in (None, "") else str(one) for one in rows[column].to_pylist()], dtype=object)
        names, counts = np.unique(values, return_counts=True)
        for place in np.argsort(-counts, kind="stable")[:MOST_VALUES]:
            if counts[place] < FEWEST_ROWS:
                continue
            mask = values == names[place]
            figures = measure(labels[mask], probabilities=probabilities[mask], kind=kind)
            positive = float((probabilities[mask].argmax(axis=1) == 1).mean()) if kind == "binary" else None
            found.append({
                "column": column, "value": str(names[place]), "rows": int(counts[place]), "share": float(counts[place] / len(values)),
                "leading": figures.get(leading), "accuracy": figures["accuracy"], "positive": positive,
            })  # fmt: skip
    return found
