"""How much the model leans on each input: permutation importance through an answer function. How a model is run is the caller's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from platform_assets.measures import HIGHER_IS_BETTER, METRICS, measure

if TYPE_CHECKING:
    from collections.abc import Callable

    import pyarrow as pa

    from platform_assets.specs.records import FeatureSchema


def share_importance(
    holdout: pa.Table, *, schema: FeatureSchema, kind: str, answer: Callable[[pa.Table], np.ndarray], rows: int = 2000, seed: int = 7
) -> dict[str, float]:
    """Return each feature's share of the total importance, summing to 1 (all 0 where no input matters).

    Importance is the loss of the leading metric when one column is shuffled (Breiman 2001, Mach. Learn. 45, 5), floored at 0,
    on at most `rows` seeded rows; `answer`: table of feature columns to probabilities [rows, classes].
    """
    rng = np.random.default_rng(seed)
    sample = holdout.take(np.sort(rng.permutation(holdout.num_rows)[:rows]))
    labels = np.array([schema.classes.index(value) for value in sample[schema.target].to_pylist()])
    metric = METRICS[kind][0]
    sign = 1.0 if HIGHER_IS_BETTER[metric] else -1.0

    def score(table: pa.Table) -> float:
        return sign * measure(labels, probabilities=np.asarray(answer(table)), kind=kind).get(metric, 0.0)

    whole = score(sample)
    losses = {}
    for feature in schema.features:
        place = sample.column_names.index(feature.name)
        shuffled = sample.set_column(place, feature.name, sample[feature.name].take(rng.permutation(sample.num_rows)))
        losses[feature.name] = max(0.0, whole - score(shuffled))
    total = sum(losses.values())
    return {name: loss / total if total else 0.0 for name, loss in losses.items()}
