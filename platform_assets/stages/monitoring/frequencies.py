"""How often each word of a stream came, in one pass and little memory, with the error that was made counted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa

COUNTERS = 1024


@dataclass(frozen=True)
class FrequencySketch:
    """Counts of the most frequent words; a true count is at least what is told, and at most `lost` more. A word not told: at most `lost`.

    Misra and Gries 1982 (Sci. Comput. Program. 2, 143), merged as by Agarwal et al. 2012 (PODS 31, 23): `lost` is never above
    rows / COUNTERS, and 0 while there are no more different words than counters.
    """

    rows: int
    counts: dict[str, int]
    lost: int = 0

    def merge(self, other: FrequencySketch) -> FrequencySketch:
        """Return the sketch of both streams."""
        counts = dict(self.counts)
        for word, count in other.counts.items():
            counts[word] = counts.get(word, 0) + count
        lost = self.lost + other.lost
        if len(counts) > COUNTERS:
            least = int(np.partition(np.fromiter(counts.values(), np.int64, len(counts)), -COUNTERS - 1)[-COUNTERS - 1])
            counts = {word: count - least for word, count in counts.items() if count > least}
            lost += least
        return FrequencySketch(self.rows + other.rows, counts, lost)


def sketch_words(words: pa.Array | pa.ChunkedArray) -> FrequencySketch:
    """Sketch words, none of them missing; names are only made of those that are kept."""
    import pyarrow.compute as pc

    found = pc.value_counts(words)
    names, counts = found.field("values"), found.field("counts").to_numpy(zero_copy_only=False)
    lost = 0
    if len(counts) > COUNTERS:
        lost = int(np.partition(counts, -COUNTERS - 1)[-COUNTERS - 1])
        kept = np.flatnonzero(counts > lost)
        names, counts = names.take(kept), counts[kept] - lost
    return FrequencySketch(len(words), dict(zip(names.to_pylist(), counts.tolist(), strict=True)), lost)
