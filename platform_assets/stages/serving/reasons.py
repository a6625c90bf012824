"""Reasons of one prediction: how much each column moved the answer away from that of a typical row, named and additive.

Shapley values (Shapley 1953; for models Strumbelj and Kononenko 2014, Knowl. Inf. Syst. 41, 647) of the game in which a column is either
the row's or the reference row's, which the release carries. Exact over all subsets where those are few, else over sampled orders of the
columns, each with its reverse (antithetic, Mitchell et al. 2022, JMLR 23:43), with a standard error. Either way contributions sum to the
difference of the two answers, and a column that the model does not use gets nothing. A reason says what the model did with these two rows,
no more: not what would happen in the world if a column were changed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from platform_assets.errors import RequestError
from platform_assets.stages.serving.columns import Encoded

if TYPE_CHECKING:
    from platform_assets.specs.records import FeatureSchema

MASKED_ROWS = 512  # that explain one row: bounds the cost at one run of the largest batch
MAX_EXPLAINED_ROWS = 16  # a request
_SEED = 7
_DIGITS = 6

Predict = Callable[[Encoded], np.ndarray]


@dataclass(frozen=True)
class Reasons:
    """Contributions in the order of `columns`, their standard errors, and both answers, for one class."""

    columns: tuple[str, ...]
    contributions: np.ndarray
    errors: np.ndarray
    answer: float
    reference: float
    orders: int  # 0: all subsets

    @property
    def left_over(self) -> float:
        """What the contributions do not add up to: nothing but rounding."""
        return self.answer - self.reference - float(self.contributions.sum())


def name_columns(schema: FeatureSchema) -> tuple[str, ...]:
    """Columns that get a contribution, in the order of the encoded arrays; RequestError for a model of images."""
    if images := schema.of_kind("image"):
        raise RequestError(f"field 'reasons': column {images[0].name!r} is an image, which has no columns to name; ask without reasons")
    return tuple(feature.name for kinds in (("numeric", "date"), ("category",), ("text",)) for feature in schema.of_kind(*kinds))


def explain(predict: Predict, row: Encoded, reference: Encoded, *, schema: FeatureSchema, budget: int = MASKED_ROWS) -> Reasons:
    """Explain the most probable class of one row against the reference row; at most `budget` masked rows and the two themselves are run."""
    columns = name_columns(schema)
    masks, weigh, orders = _plan(len(columns), budget)
    ends = np.array([[False] * len(columns), [True] * len(columns)])
    answers = predict(_mix(row, reference, np.concatenate([ends, masks])))
    best = int(answers[1].argmax())
    shares = answers[:, best].astype(np.float64)
    contributions, errors = weigh(shares)
    return Reasons(columns, contributions, errors, float(shares[1]), float(shares[0]), orders)


def as_reply(reasons: Reasons, *, label: str, given: dict[str, Any], typical: dict[str, Any]) -> dict[str, Any]:
    """Write reasons as a caller gets them, the largest first, each with the value it had and the one it was held against."""
    order = np.argsort(-np.abs(reasons.contributions), kind="stable").tolist()
    return {
        "label": label,
        "probability": reasons.answer,
        "reference_probability": reasons.reference,
        "method": f"Shapley values of {reasons.orders} sampled orders" if reasons.orders else "exact Shapley values",
        "left_over": round(reasons.left_over, _DIGITS),
        "contributions": [
            {
                "column": reasons.columns[at], "value": given.get(reasons.columns[at]), "reference": typical.get(reasons.columns[at]),
                "contribution": round(float(reasons.contributions[at]), _DIGITS), "error": round(float(reasons.errors[at]), _DIGITS),
            }
            for at in order
        ],
    }  # fmt: skip


def _mix(row: Encoded, reference: Encoded, masks: np.ndarray) -> Encoded:
    """Rows in which each column is the row's where its mask is true, else the reference's."""
    start, mixed = 0, {}
    for name in ("numeric", "categorical", "text"):
        ours, theirs = getattr(row, name), getattr(reference, name)
        if ours is None:
            continue
        stop = start + ours.shape[1]
        mixed[name] = np.where(masks[:, start:stop], ours, theirs)
        start = stop
    return Encoded(len(masks), mixed.get("numeric"), mixed.get("categorical"), None, mixed.get("text"))


Weigh = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


def _plan(count: int, budget: int) -> tuple[np.ndarray, Weigh, int]:
    """Masks to run beside the two ends, how their answers (ends first) become contributions, and the number of orders."""
    if 2**count <= budget:
        return _all_subsets(count)
    return _sampled_orders(count, pairs=max(1, budget // (2 * (count - 1))))


def _all_subsets(count: int) -> tuple[np.ndarray, Weigh, int]:
    masks = (np.arange(2**count)[:, None] >> np.arange(count)) & 1 == 1
    sizes = masks.sum(axis=1)

    def weigh(shares: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        shares = shares[2:]
        found = np.zeros(count)
        for column in range(count):
            without = np.flatnonzero(~masks[:, column])
            weight = np.array([1.0 / (count * math.comb(count - 1, size)) for size in sizes[without]])
            found[column] = weight @ (shares[without | (1 << column)] - shares[without])
        return found, np.zeros(count)

    return masks, weigh, 0


def _sampled_orders(count: int, *, pairs: int) -> tuple[np.ndarray, Weigh, int]:
    random = np.random.default_rng(_SEED)
    drawn = [random.permutation(count) for _ in range(pairs)]
    orders = np.array([order for one in drawn for order in (one, one[::-1])])
    places = np.argsort(orders, axis=1)  # when each column turns from the reference's to the row's
    steps = np.arange(1, count)
    masks = places[:, None, :] < steps[None, :, None]  # [orders, steps, columns]

    def weigh(shares: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        inner = shares[2:].reshape(len(orders), count - 1)
        low, high = np.full((len(orders), 1), shares[0]), np.full((len(orders), 1), shares[1])
        gains = np.diff(np.hstack([low, inner, high]), axis=1)
        by_column = np.take_along_axis(gains, places, axis=1)
        of_pairs = by_column.reshape(pairs, 2, count).mean(axis=1)
        errors = of_pairs.std(axis=0, ddof=1) / math.sqrt(pairs) if pairs > 1 else np.full(count, np.nan)
        return by_column.mean(axis=0), errors

    return masks.reshape(-1, count), weigh, len(orders)
