"""Frames of one model put side by side until the writing thread takes them. Written over again and again, so that it stays in the cache."""

from __future__ import annotations

from dataclasses import dataclass

BUFFER_BYTES = (
    1 << 20
)  # at 256 KiB handing over 32-row runs to the thread took an eighth of the CPU, at 64 KiB a third more at one connection


@dataclass(frozen=True, slots=True, eq=False)
class Chunk:
    """Whole frames, descriptions of the versions they are of (digest to frame), rows, and the number after the last row."""

    frames: bytes
    descriptions: dict[str, bytes]
    rows: int
    until: int


class LogBuffer:
    """Room for frames; what is longer than all of it gets room of its own."""

    def __init__(self, size_bytes: int = BUFFER_BYTES) -> None:
        self._room = bytearray(size_bytes)
        self._end = 0
        self._descriptions: dict[str, bytes] = {}
        self.rows = self._until = 0

    def has_room(self, size: int) -> bool:
        """Whether a frame fits; an empty buffer takes any."""
        return not self.rows or self._end + size <= len(self._room)

    def put(self, frame: bytes, *, digest: str, description: bytes, rows: int, until: int) -> None:
        """Add a frame of this many rows of a version; `until` is the number after the last of them."""
        end = self._end + len(frame)
        self._room[self._end : end] = frame
        self._end = end
        self._descriptions[digest] = description
        self.rows += rows
        self._until = until

    def take(self) -> Chunk:
        """Everything that was put in; the buffer is empty afterwards."""
        chunk = Chunk(bytes(memoryview(self._room)[: self._end]), self._descriptions, self.rows, self._until)
        self._descriptions = {}
        self._end = self.rows = 0
        return chunk
