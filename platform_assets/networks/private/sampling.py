"""A feed by Poisson sampling, as the accountant assumes: whether a row is in a batch is a coin of its own, which nobody knows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from platform_assets.networks.feed.encoded import EncodedSplit
    from platform_assets.networks.feed.protocol import Batch


class PoissonFeed:
    """Batches of `batch` rows on average, of nought or of many more at times; drawn from the system's entropy, so never the same again."""

    def __init__(self, split: EncodedSplit, *, batch: int) -> None:
        self._split = split
        self.rows = split.rows
        self.rate = min(batch, self.rows) / self.rows
        self.steps = self.rows // min(batch, self.rows)
        self._chance = np.random.default_rng()

    def batches(self, epoch: int, *, start: int = 0) -> Iterator[Batch]:
        """Draw the batches of an epoch from step `start` on; none of them follows from the epoch's number."""
        del epoch
        for _ in range(start, self.steps):
            yield self.take(self._draw())

    def take(self, rows: NDArray[np.int64]) -> Batch:
        """Give the rows with these ascending numbers, of which there may be none."""
        return self._split.take(rows) if len(rows) else tuple(part[:0] for part in self._split.take(np.zeros(1, np.int64)))

    def _draw(self) -> NDArray[np.int64]:
        """Return the rows whose coins fell: their number is binomial, and given it every subset is as likely."""
        count = int(self._chance.binomial(self.rows, self.rate))
        return np.sort(self._chance.choice(self.rows, count, replace=False, shuffle=False))
