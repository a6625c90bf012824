"""The challenger asked beside the champion, in a thread of its own, after the reply: it can be slow or broken and no caller notices."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Any

from platform_assets.errors import ServingError

if TYPE_CHECKING:
    import numpy as np

    from platform_assets.stages.serving.bundle import Bundle
    from platform_assets.stages.serving.columns import Encoded
    from platform_assets.stages.serving.figures import Comparison
    from platform_assets.stages.serving.traffic import Arm

_MAX_WAITING = 256  # requests; a challenger that cannot keep up is compared on fewer, and the skipped ones are counted


@dataclass(frozen=True, eq=False)
class Sample:
    """One answered request: its rows and what the champion said. `rows` serves a challenger with another schema."""

    champion: Arm
    challenger: Arm
    comparison: Comparison
    batch: Encoded
    rows: Callable[[], Sequence[dict[str, Any]]]
    answered: np.ndarray


class Shadow:
    """Only its thread writes a shadow challenger's figures, so no lock is needed."""

    def __init__(self) -> None:
        self._waiting: deque[Sample] = deque()
        self._ready = threading.Semaphore(0)
        self._stopping = False
        self._thread = threading.Thread(target=self._work, name="shadow", daemon=True)
        self._thread.start()

    def offer(self, sample: Sample) -> None:
        """Queue a sample without waiting; beyond the bound it is skipped and counted."""
        if len(self._waiting) >= _MAX_WAITING:
            sample.comparison.skipped_requests += 1
            return
        self._waiting.append(sample)
        self._ready.release()

    def stop(self) -> None:
        """Forget what waits and end the thread."""
        self._stopping = True
        self._waiting.clear()
        self._ready.release()
        self._thread.join(timeout=5)

    def _work(self) -> None:
        while True:
            self._ready.acquire()
            if self._stopping:
                return
            _compare(self._waiting.popleft())


def _compare(sample: Sample) -> None:
    champion, challenger = sample.champion.bundle, sample.challenger.bundle
    figures = sample.challenger.figures
    try:
        batch = sample.batch
        if challenger.schema != champion.schema:
            batch = challenger.reader.encode(challenger.reader.restrict(sample.rows(), to_known_beside=champion.reader))
        started = perf_counter()
        found = challenger.predict(batch)
    except ServingError:
        figures.failed()
        return
    figures.answered(batch.rows, perf_counter() - started)
    pairs = zip(_labels(champion, sample.answered), _labels(challenger, found), strict=True)
    sample.comparison.disagreements += sum(ours != theirs for ours, theirs in pairs)
    sample.comparison.compared_rows += batch.rows  # last: who reads meanwhile must not see rows whose verdict is still to come


def _labels(bundle: Bundle, probabilities: np.ndarray) -> list[str]:
    return [bundle.schema.classes[best] for best in probabilities.argmax(axis=1).tolist()]
