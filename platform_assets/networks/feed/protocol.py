"""What the training loop asks of a feed, and how ranks share a global batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from platform_assets.errors import TrainingError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

Batch = tuple["Tensor", ...]
"""(numeric float32 [n, Dn], ids int64 [n, Dc], image float32 [n, size], target); a text's tokens int64 [n, L] stand before the target
where the schema has text."""


class Feed(Protocol):
    """This rank's part of every global batch of every epoch.

    The order of global batches depends on (seed, epoch) alone, never on the number of ranks: rank r of w takes rows
    [r*n//w, (r+1)*n//w) of each, so a training that goes on with another world size goes on with the same global batches.
    """

    @property
    def rows(self) -> int:
        """Count the split's rows, over all ranks."""
        ...

    @property
    def steps(self) -> int:
        """Count whole global batches an epoch; the rows that fill none wait for another epoch's order."""
        ...

    def batches(self, epoch: int, *, start: int = 0) -> Iterator[Batch]:
        """Give this rank's part of the epoch's global batches from step `start` on, at once: earlier ones are not read."""
        ...


@dataclass(frozen=True)
class Part:
    """Rank `rank` of `world` equal takers of each global batch of `batch` rows; fewer rows than takers raise TrainingError."""

    batch: int
    rank: int = 0
    world: int = 1

    def __post_init__(self) -> None:
        """Refuse a batch that leaves a rank without rows."""
        if self.batch < self.world:
            raise TrainingError(
                f"a global batch of {self.batch} rows cannot be shared by {self.world} ranks; raise training.batch_size or take fewer"
            )

    @property
    def first(self) -> int:
        """Position of this rank's first row in a global batch."""
        return self.rank * self.batch // self.world

    @property
    def end(self) -> int:
        """Position behind this rank's last row in a global batch."""
        return (self.rank + 1) * self.batch // self.world
