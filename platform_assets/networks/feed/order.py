"""The order of an epoch: blocks of neighbouring rows are shuffled, and the rows of many blocks among each other.

A whole shuffle would read a page for every row. Here a window of thousands of blocks is read once, in the order of the file, and its
rows are dealt out at random; any position of an epoch is found at once, without dealing out the earlier ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

BLOCK_BYTES = 8192  # two pages: little more is read than is used
MOST_BLOCK_ROWS = 32
WINDOW_BYTES = 32 * 2**20


@dataclass(frozen=True)
class Blocks:
    """Rows in a block and blocks in a window."""

    rows: int
    window: int

    @classmethod
    def of(cls, row_bytes: int) -> Blocks:
        """Choose them by the size of a row: 180 bytes give blocks of 32 rows, 5,800 to a window; an image is a block of its own."""
        rows = max(1, min(MOST_BLOCK_ROWS, BLOCK_BYTES // row_bytes))
        return cls(rows, max(1, WINDOW_BYTES // (rows * row_bytes)))


class EpochOrder:
    """All rows of one epoch, window by window; fixed by seed, epoch, number of rows and blocks."""

    def __init__(self, rows: int, *, blocks: Blocks, seed: int, epoch: int) -> None:
        self._rows, self._blocks, self._place = rows, blocks, (seed, epoch)
        count = -(-rows // blocks.rows)
        # The seeds of windows end in 1, 2, ...: numpy fills a short seed up with zeros.
        self._order = np.random.default_rng((*self._place, 0)).permutation(count)
        lengths = np.full(-(-count // blocks.window), blocks.window * blocks.rows)
        lengths[-1] = (count - (len(lengths) - 1) * blocks.window) * blocks.rows
        short = int(np.flatnonzero(self._order == count - 1)[0]) // blocks.window  # the split's last block may be a part of one
        lengths[short] -= count * blocks.rows - rows
        self.starts = np.concatenate([[0], np.cumsum(lengths)])

    @property
    def windows(self) -> int:
        """Count windows; window i holds the epoch's positions starts[i] to starts[i + 1]."""
        return len(self.starts) - 1

    def window(self, number: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Give the window's rows in the order of the file, and for each of its positions the place of its row among them."""
        blocks = np.sort(self._order[number * self._blocks.window : (number + 1) * self._blocks.window])
        rows = (blocks[:, None] * self._blocks.rows + np.arange(self._blocks.rows)).ravel()
        rows = rows[: np.searchsorted(rows, self._rows)]
        return rows, np.random.default_rng((*self._place, number + 1)).permutation(len(rows))
