"""A feed from encoded shards: batches dealt out of windows that are read ahead, at the price of one copy a row and one a batch."""

from __future__ import annotations

from collections import deque
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from typing import TYPE_CHECKING

import numpy as np
import torch

from platform_assets.networks.feed.order import Blocks, EpochOrder
from platform_assets.networks.feed.protocol import Part

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from platform_assets.networks.feed.encoded import EncodedSplit
    from platform_assets.networks.feed.protocol import Batch

_AHEAD = 2  # batches on their way to the GPU while one is used


class ShardFeed:
    """This rank's batches from an encoded split, on `device`; a batch larger than the split is the whole split.

    Holds two windows of the rank's rows (64 MiB at most for one rank, however large the split is) and for a GPU three pinned batches.
    """

    def __init__(
        self, split: EncodedSplit, *, batch: int, seed: int, rank: int = 0, world: int = 1, device: torch.device | None = None,
        blocks: Blocks | None = None,
    ) -> None:  # fmt: skip
        self._split, self._seed, self._device = split, seed, device or torch.device("cpu")
        self._blocks = blocks or Blocks.of(split.layout.row_bytes)
        self.rows = split.rows
        self._part = Part(min(batch, self.rows), rank=rank, world=world)
        self.steps = self.rows // self._part.batch

    def batches(self, epoch: int, *, start: int = 0) -> Iterator[Batch]:
        """Give this rank's part of the epoch's global batches from step `start` on; no earlier window is read."""
        if self._device.type == "cuda":
            return self._copied_ahead(epoch, start)
        buffer = np.empty((self._part.end - self._part.first, self._split.layout.row_bytes), np.uint8)
        return (self._split.layout.unpack(torch.from_numpy(records)) for records in self._cut(epoch, start, buffers=repeat(buffer)))

    def _cut(self, epoch: int, start: int, *, buffers: Iterator[NDArray[np.uint8]]) -> Iterator[NDArray[np.uint8]]:
        """Fill one buffer after the other with the rows of a batch, which may come from two windows."""
        share = self._part.end - self._part.first
        out, filled = next(buffers), 0
        for records, order in self._windows(epoch, start):
            used = 0
            while used < len(order):
                taken = min(share - filled, len(order) - used)
                np.take(records, order[used : used + taken], axis=0, out=out[filled : filled + taken], mode="clip")
                used, filled = used + taken, filled + taken
                if filled == share:
                    yield out
                    out, filled = next(buffers), 0

    def _windows(self, epoch: int, start: int) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.int64]]]:
        """Give this rank's rows of each window and the order to deal them out in; the next window is read meanwhile."""
        if start >= self.steps:
            return
        order = EpochOrder(self.rows, blocks=self._blocks, seed=self._seed, epoch=epoch)
        first = int(np.searchsorted(order.starts, start * self._part.batch, side="right")) - 1
        last = int(np.searchsorted(order.starts, self.steps * self._part.batch, side="left"))
        # Two buffers in turn: windows of their own, made in a thread an epoch, stayed with the allocator (80 MB seen after 20 epochs).
        length = min(self.rows, self._blocks.rows * self._blocks.window)
        buffers = [np.empty((length, self._split.layout.row_bytes), np.uint8) for _ in range(2)]
        with ThreadPoolExecutor(1, thread_name_prefix="feed") as reader:
            ahead = reader.submit(self._window, order, first, start, buffers[first % 2])
            for number in range(first + 1, last):
                window = ahead.result()
                ahead = reader.submit(self._window, order, number, start, buffers[number % 2])
                yield window
            yield ahead.result()

    def _window(self, order: EpochOrder, number: int, start: int, buffer: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        rows, dealt = order.window(number)
        positions = np.arange(order.starts[number], order.starts[number + 1])
        step, place = np.divmod(positions, self._part.batch)
        mine = (step >= start) & (step < self.steps) & (place >= self._part.first) & (place < self._part.end)
        if mine.all():
            return self._split.read(rows, out=buffer[: len(rows)]), dealt
        dealt = dealt[mine]
        needed = np.zeros(len(rows), bool)
        needed[dealt] = True
        rows = rows[needed]
        return self._split.read(rows, out=buffer[: len(rows)]), (np.cumsum(needed) - 1)[dealt]

    def _copied_ahead(self, epoch: int, start: int) -> Iterator[Batch]:
        """Copy each batch from pinned memory on a stream of its own, some batches before it is asked for."""
        stream = torch.cuda.Stream(self._device)
        shape = (self._part.end - self._part.first, self._split.layout.row_bytes)
        pinned = [torch.empty(shape, dtype=torch.uint8, pin_memory=True) for _ in range(_AHEAD + 1)]
        copied = [torch.cuda.Event() for _ in pinned]

        def buffers() -> Iterator[NDArray[np.uint8]]:
            while True:
                for buffer, event in zip(pinned, copied, strict=True):
                    event.synchronize()  # the copy that last used it has ended
                    yield buffer.numpy()

        waiting: deque[tuple[Batch, torch.cuda.Event]] = deque()
        for number, _ in enumerate(self._cut(epoch, start, buffers=buffers())):
            turn = number % len(pinned)
            with torch.cuda.stream(stream):
                batch = self._split.layout.unpack(pinned[turn].to(self._device, non_blocking=True))
                copied[turn].record(stream)
            waiting.append((batch, copied[turn]))
            if len(waiting) > _AHEAD:
                yield self._handed_over(*waiting.popleft())
        while waiting:
            yield self._handed_over(*waiting.popleft())

    def _handed_over(self, batch: Batch, copied: torch.cuda.Event) -> Batch:
        """Let the step's stream wait for the copy, and keep the memory from being used again before that stream is done with it."""
        stream = torch.cuda.current_stream(self._device)
        stream.wait_event(copied)
        for tensor in batch:
            tensor.record_stream(stream)
        return batch
