"""Following another server: what it has taken live is served here, too, soon after its state file says so.

Replicas behind a load balancer follow the one server that releases are shadowed and canaried on. They read a file that is renamed into
place, so there is nothing to lose a message and nobody to ask: a follower that was away, or began late, reads the same.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from platform_assets.errors import ServingError
from platform_assets.stages.serving.traffic import read_state

if TYPE_CHECKING:
    from platform_assets.stages.serving.admin import Admin

LOOK_SECONDS = 2.0
_LONGEST_PAUSE_SECONDS = 300.0  # between two tries of a release that cannot be loaded here


class Follower:
    """Brings a server to what a leader's state file says of live releases; the leader's challengers are its own."""

    def __init__(self, admin: Admin, leader: Path, *, look_seconds: float = LOOK_SECONDS) -> None:
        self._admin, self._leader, self._look_seconds = admin, leader, look_seconds
        self._seen: tuple[int, int] | None = None
        self._wanted: dict[str, tuple[str, Path]] = {}
        self._pause, self._not_before = look_seconds, 0.0

    async def keep_up(self) -> None:
        """Look again and again, for ever."""
        while True:
            await asyncio.sleep(self._look_seconds)
            await self.catch_up()

    async def catch_up(self) -> None:
        """Serve what the leader serves now. What cannot be served is said once a try, and tried again ever more seldom."""
        try:
            changed = self._look()
            if not changed and time.monotonic() < self._not_before:
                return
            for model, (digest, path) in self._wanted.items():
                await self._admin.follow(model, digest=digest, path=path)
        except ServingError as error:
            sys.stderr.write(f"Following {self._leader}: {error}\n")
            self._not_before = time.monotonic() + self._pause
            self._pause = min(2 * self._pause, _LONGEST_PAUSE_SECONDS)
        else:
            self._pause, self._not_before = self._look_seconds, 0.0

    def _look(self) -> bool:
        """Read the leader's file where it is another one than before; whether it is."""
        try:
            found = self._leader.stat()
        except FileNotFoundError:
            return False
        stamp = (found.st_ino, found.st_mtime_ns)
        if stamp == self._seen:
            return False
        saved = read_state(self._leader)
        try:
            live = {model: one["traffic"]["live"] for model, one in saved.items()}
            wanted = {model: (digest, Path(saved[model]["loaded"][digest])) for model, digest in live.items() if digest is not None}
        except (KeyError, TypeError) as error:
            raise ServingError(f"it is not a state file of this server ({error!r}); name the one of the server to follow") from error
        self._wanted, self._seen = wanted, stamp
        return True


@asynccontextmanager
async def followed(admin: Admin, leader: Path | None) -> AsyncIterator[None]:
    """Follow a leader, where there is one: what is live there is live here when this begins, and from then on."""
    if leader is None:
        yield
        return
    follower = Follower(admin, leader)
    await follower.catch_up()
    following = asyncio.get_running_loop().create_task(follower.keep_up())
    try:
        yield
    finally:
        following.cancel()
