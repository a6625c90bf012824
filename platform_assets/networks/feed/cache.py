"""A node's cache of what is made from shards, by content: several processes share it, and what it holds is whole.

An entry is written beside its name, flushed and renamed, under a lock of its own: a process that dies leaves a `.partial` that nobody
reads and the next writer takes over. The longest unused entries go when the folder holds more than its limit; a removed entry that some
process has mapped stays readable to it and gives its space back when that process ends. Locks are flock(2): one node, no network share.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO, TypeVar

from platform_assets.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

T = TypeVar("T")
_LOCK, _PARTIAL = ".lock", ".partial"


class ShardCache:
    """Entries by key under one folder, at most `limit_bytes` of them; counts what it found and what it had to make."""

    def __init__(self, folder: Path, *, limit_bytes: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self.limit_bytes = limit_bytes
        self.hits = self.misses = self.hit_bytes = self.made_bytes = 0

    def fetch(self, key: str, *, write: Callable[[BinaryIO], object], read: Callable[[Path], T]) -> T:
        """Return what `read` makes of the entry, which `write` makes first where there is none.

        `read` must open or map the file at once: the entry may be gone when it returns. A process that finds another one writing the
        entry waits for it. A disk that is full raises DataError.
        """
        while True:
            if (found := self._find(key, read)) is not None:
                return found[0]
            with self._partial(key) as file:
                if file is None or (self._folder / key).exists():
                    continue  # somebody else made it while we waited
                self._fill(file, key=key, write=write)
                with self._lock(fcntl.LOCK_EX):
                    (self._folder / f"{key}{_PARTIAL}").replace(self._folder / key)
                    self._make_room(spare=key)
                    return read(self._folder / key)

    def figures(self) -> dict[str, float]:
        """Give hits, misses, their share and their bytes since this cache was opened."""
        asked = self.hits + self.misses
        return {
            "cache_hits": float(self.hits), "cache_misses": float(self.misses), "cache_hit_share": self.hits / asked if asked else 0.0,
            "cache_hit_bytes": float(self.hit_bytes), "cache_made_bytes": float(self.made_bytes),
        }  # fmt: skip

    def _find(self, key: str, read: Callable[[Path], T]) -> tuple[T] | None:
        path = self._folder / key
        with self._lock(fcntl.LOCK_SH):
            try:
                os.utime(path)  # used now: the last to go
            except FileNotFoundError:
                return None
            self.hits += 1
            self.hit_bytes += path.stat().st_size
            return (read(path),)

    def _fill(self, file: BinaryIO, *, key: str, write: Callable[[BinaryIO], object]) -> None:
        try:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        except OSError as error:
            raise DataError(
                f"the shard cache {self._folder} could not take an entry ({error.strerror}); free space there or name another folder"
            ) from error
        self.misses += 1
        self.made_bytes += os.fstat(file.fileno()).st_size
        os.utime(self._folder / f"{key}{_PARTIAL}")

    @contextmanager
    def _partial(self, key: str) -> Iterator[BinaryIO | None]:
        """Hold the one file that the entry is written to, empty; None when another process ended its work on it meanwhile."""
        path = self._folder / f"{key}{_PARTIAL}"
        with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o644), "r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if not _is_at(file, path):
                yield None
                return
            try:
                file.truncate(0)
                yield file
            finally:
                if _is_at(file, path):
                    path.unlink()

    @contextmanager
    def _lock(self, how: int) -> Iterator[None]:
        """Keep entries where they are (shared) or change which there are (exclusive)."""
        with (self._folder / _LOCK).open("wb") as file:
            fcntl.flock(file, how)
            yield

    def _make_room(self, *, spare: str) -> None:
        entries = []
        for path in self._folder.iterdir():
            if path.suffix == _PARTIAL:
                _remove_abandoned(path)
            elif path.name not in {_LOCK, spare}:
                seen = path.stat()
                entries.append((seen.st_mtime_ns, path.name, seen.st_size))
        held = (self._folder / spare).stat().st_size + sum(size for _, _, size in entries)
        for _, name, size in sorted(entries):
            if held <= self.limit_bytes:
                return
            (self._folder / name).unlink()
            held -= size


def _is_at(file: BinaryIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _remove_abandoned(path: Path) -> None:
    """Remove a half-written entry whose writer is gone: nobody holds its lock."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(file, path):
                path.unlink()
    except (FileNotFoundError, BlockingIOError):
        return
