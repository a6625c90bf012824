"""What the audit log shall hear of the server: refused releases, releases opened with the keys, callers turned away. Predictions are not.

An incident is a small file under `incidents/`, renamed into place; the platform takes it into the audit log, which the server cannot reach.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from pathlib import Path

FOLDER = "incidents"
_DENIALS_SECONDS = 60.0


class Incidents:
    """Notes incidents of one process. A disk that takes none stops nobody from being refused."""

    def __init__(self, serving: Path) -> None:
        self._folder = serving / FOLDER
        self._count = 0

    def note(self, action: str, *, subject: str, **detail: Any) -> None:
        """Leave one incident for the audit log."""
        self._count += 1
        file = self._folder / f"{time.time_ns()}-{os.getpid()}-{self._count}.json"
        content = {"action": action, "subject": subject, "detail": {**detail, "at": datetime.now(UTC).isoformat(timespec="milliseconds")}}
        try:
            self._folder.mkdir(exist_ok=True)
            beside = file.with_suffix(".tmp")
            beside.write_bytes(orjson.dumps(content))
            beside.replace(file)
        except OSError:
            return


class Denials:
    """Callers that were turned away, counted by reason: one incident a minute however many they are. For one thread alone."""

    def __init__(self, incidents: Incidents) -> None:
        self._incidents = incidents
        self._counts: Counter[str] = Counter()
        self._told = -_DENIALS_SECONDS

    def note(self, reason: str) -> None:
        """Count one; the first is told at once, the others of its minute together with the next."""
        self._counts[reason] += 1
        if time.monotonic() - self._told >= _DENIALS_SECONDS:
            self.tell()

    def tell(self) -> None:
        """Tell what was counted since the last time."""
        if self._counts:
            self._told = time.monotonic()
            self._incidents.note("denied", subject="server", counts=dict(self._counts))
            self._counts.clear()
