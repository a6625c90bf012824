"""What trees read: one float a feature. Numbers as they come, dates as the day of the year, categories as a code that orders them.

A category's code is the teacher's mean logit of its rows, drawn to nought where they are few; an unknown value gets nought.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from platform_assets.networks.encoding import DAYS_A_YEAR
from platform_assets.networks.preprocessing import UNKNOWN
from platform_assets.stages.compression.graph import look_up

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from platform_assets.networks.preprocessing import Preprocessing
    from platform_assets.stages.compression.graph import GraphWriter

FEW = 20.0  # rows that count as much as the mean of all rows does
ENDLESS = np.float32(1e30)  # a period that changes no number


@dataclass(frozen=True)
class TableCode:
    """Codes [rows of the common table] of all categories, and the period of each number."""

    codes: NDArray[np.float32]
    periods: NDArray[np.float32]

    def encode(self, numeric: NDArray[np.float32], ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return [N, numbers + categories], NaN where a number is missing."""
        numbers = np.fmod(numeric, self.periods) if (self.periods < ENDLESS).any() else numeric
        return np.concatenate([numbers, self.codes[ids]], axis=1).astype(np.float32)


def fit_code(fitted: Preprocessing, ids: NDArray[np.int64], *, logits: NDArray[np.float32]) -> TableCode:
    """Fit codes on rows and the teacher's logits of them, [N, classes]: the direction in which these differ most orders the categories."""
    rows = sum(column.size for column in fitted.categories)
    centred = logits - logits.mean(0)
    direction = np.linalg.eigh(centred.T @ centred)[1][:, -1]
    said = centred @ direction * np.sign(direction[-1] or 1.0)
    codes = np.zeros(max(1, rows), np.float32)
    for column in ids.T:
        count = np.bincount(column, minlength=rows)
        codes += np.where(count > 0, np.bincount(column, weights=said, minlength=rows) / (count + FEW), 0.0).astype(np.float32)
    codes[[offset + UNKNOWN for offset in fitted.offsets]] = 0.0
    periods = np.array([DAYS_A_YEAR if column.is_date else ENDLESS for column in fitted.numbers], np.float32)
    return TableCode(codes, periods)


def used_codes(code: TableCode, fitted: Preprocessing, cuts: dict[int, NDArray[np.float32]]) -> TableCode:
    """Return codes that lie between the same cuts, few and plain; what lies with the unknown becomes nought and needs no look-up.

    `cuts` are the thresholds in use of each category, by its place among the categories.
    """
    plain = np.zeros_like(code.codes)
    for place, (column, offset) in enumerate(zip(fitted.categories, fitted.offsets, strict=True)):
        own, edges = code.codes[offset : offset + column.size], np.sort(cuts.get(place, np.empty(0, np.float32)))
        if not len(edges):
            continue
        middles = np.concatenate([[edges[0] - 1], (edges[:-1] + edges[1:]) / 2, [edges[-1] + 1]]).astype(np.float32)
        home = int(np.searchsorted(edges, np.float32(0), side="left"))
        middles[home] = 0.0
        plain[offset : offset + column.size] = middles[np.searchsorted(edges, own, side="left")]
    return TableCode(plain, code.periods)


def write_features(writer: GraphWriter, fitted: Preprocessing, code: TableCode) -> str:
    """Add the nodes that make the features; return their name. The graph of a value is the same for trees of every form."""
    parts = []
    if fitted.numbers:
        numbers = writer.input("numeric", width=len(fitted.numbers))
        periodic = (code.periods < ENDLESS).any()
        parts.append(writer.add("Mod", numbers, writer.constant(code.periods[None]), fmod=1) if periodic else numbers)
    if fitted.categories:
        values = {int(row): float(code.codes[row]) for row in np.flatnonzero(code.codes)}
        if not values:  # no category is looked at: the input is there all the same
            values = {fitted.offsets[0]: 0.0}
        parts.append(look_up(writer, fitted, values=values, default=0.0))
    return writer.add("Concat", *parts, axis=1) if len(parts) > 1 else parts[0]
