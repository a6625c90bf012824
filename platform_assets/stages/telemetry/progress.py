"""What a training says of its own course: one line of progress.jsonl for each step that is done."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FILE = "progress.jsonl"


def progress_lines(folder: Path) -> list[dict[str, Any]]:
    """Every whole line of a training folder in the order written; none where nothing was said.

    The trainer writes while others read, and a kill can come in the middle of a line: a line without its end is left for the next
    look, and one that a kill cut off (the next attempt's first words after it) is passed over.
    """
    try:
        whole, _, _ = (folder / FILE).read_bytes().rpartition(b"\n")
    except FileNotFoundError:
        return []
    return [said for line in whole.splitlines() if (said := _parse(line)) is not None]


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        said = json.loads(line)
    except ValueError:
        return None
    return said if isinstance(said, dict) else None
