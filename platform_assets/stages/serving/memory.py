"""Models under a memory limit: the least recently used are unloaded, and loaded again when a request asks for them.

What counts is the size of the models' files; a session takes about twice that. A request for an unloaded model waits for it, within its
deadline.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING
from weakref import WeakSet

from platform_assets.errors import ServingError

if TYPE_CHECKING:
    from platform_assets.stages.serving.bundle import Bundle


class Memory:
    """What is loaded in this process. All but the loading itself happens on the event loop."""

    def __init__(self, limit_bytes: int | None) -> None:
        self._limit = limit_bytes
        self._bundles: WeakSet[Bundle] = WeakSet()
        self._loading: dict[Bundle, asyncio.Task[None]] = {}
        self.unloaded = 0

    def add(self, bundle: Bundle) -> None:
        """Take note of a loaded bundle; others may have to go for it."""
        self._bundles.add(bundle)
        self._trim(bundle)

    @property
    def loaded_bytes(self) -> int:
        """Size of all loaded models."""
        return sum(bundle.size_bytes for bundle in self._bundles if bundle.session is not None)

    def load(self, bundle: Bundle, *, then: Callable[[ServingError | None], None]) -> None:
        """Load an unloaded bundle in a thread; `then` hears how it went."""
        if bundle not in self._loading:
            self._loading[bundle] = asyncio.get_running_loop().create_task(self._load(bundle, then))

    async def _load(self, bundle: Bundle, then: Callable[[ServingError | None], None]) -> None:
        fault = None
        try:
            await asyncio.to_thread(bundle.revive)
        except ServingError as error:
            fault = error
        del self._loading[bundle]
        self._trim(bundle)
        then(fault)

    def _trim(self, kept: Bundle) -> None:
        if self._limit is None:
            return
        over = self.loaded_bytes - self._limit
        for bundle in sorted(self._bundles, key=lambda one: one.used_at):
            if over <= 0:
                return
            if bundle is not kept and bundle.session is not None:
                over -= bundle.size_bytes
                bundle.unload()
                self.unloaded += 1
