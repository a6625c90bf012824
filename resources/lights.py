"""The lights of all models in one file of the serving folder, which the server's status page reads. What they say is monitoring's."""

from __future__ import annotations

import fcntl
import json
from typing import TYPE_CHECKING

from resources.home import write_atomically

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

FILE = "drift.json"


def set_light(serving: Path, model: str, light: Mapping[str, str]) -> None:
    """Set one model's light, leaving the others'; runs of several models follow one another. A file that is no JSON is begun anew."""
    serving.mkdir(parents=True, exist_ok=True)
    with (serving / f".{FILE}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # let go with the file, also by a kill
        try:
            found = json.loads((serving / FILE).read_bytes())
        except (OSError, ValueError):
            found = {}
        lights = {**(found if isinstance(found, dict) else {}), model: dict(light)}
        write_atomically(serving / FILE, json.dumps(lights, sort_keys=True).encode())
