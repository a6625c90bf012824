"""How far a training came: eight bytes in a mapped file, so that after a SIGKILL the next start knows how many steps it lost."""

from __future__ import annotations

import mmap
import struct
from pathlib import Path

_STEP = struct.Struct("<q")


class Trail:
    """The steps done in all, marked after each; `restored_from` and `lost_steps` speak of this start."""

    def __init__(self) -> None:
        self.step = 0
        self.restored_from: int | None = None
        self.lost_steps = 0
        self._map: mmap.mmap | None = None

    def follow(self, path: Path) -> int:
        """Mark into `path` from now on; return the step that an earlier start had reached."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+b") as file:
            if path.stat().st_size < _STEP.size:
                file.truncate(_STEP.size)
            self._map = mmap.mmap(file.fileno(), _STEP.size)
        before: int = _STEP.unpack_from(self._map)[0]
        return before

    def mark(self, step: int) -> None:
        """Say that `step` steps are done."""
        self.step = step
        if self._map is not None:
            _STEP.pack_into(self._map, 0, step)

    def resume(self, step: int, *, reached: int) -> None:
        """Say that this start goes on from a checkpoint of `step`, where an earlier one had reached further."""
        self.restored_from = step
        self.lost_steps = max(0, reached - step)
        self.mark(step)
