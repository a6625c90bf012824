"""What the inference server noted, taken into the audit log: each incident once, in the order in which they were noted."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from platform_assets.stages.serving.incidents import FOLDER
from resources.home import locked

if TYPE_CHECKING:
    from pathlib import Path

    from platform_assets.ports import AuditLog

_ACTOR = "inference server"


def take_over(serving: Path, audit: AuditLog) -> int:
    """Append every incident to the log and take its file away; return how many were new. A killed call is made good by the next one."""
    folder = serving / FOLDER
    if not folder.is_dir():
        return 0
    with locked(folder):
        files = sorted(folder.glob("*.json"), key=lambda file: [int(part) for part in file.stem.split("-")])
        return sum(_take(file, audit) for file in files)


def _take(file: Path, audit: AuditLog) -> bool:
    found = json.loads(file.read_bytes())
    is_new = all(entry["detail"].get("incident") != file.stem for entry in audit.entries(subject=found["subject"]))
    if is_new:
        audit.append(found["action"], subject=found["subject"], actor=_ACTOR, detail={**found["detail"], "incident": file.stem})
    file.unlink()
    return is_new
