"""Which state the code and the declarations of a home are in: what was started from one state serves no other."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from resources.settings import CHECKOUT, Settings

if TYPE_CHECKING:
    from pathlib import Path

_OURS = (CHECKOUT / "platform_assets", CHECKOUT / "resources")
_READ = (".py", ".yaml", ".yml")


def stamp_code(settings: Settings) -> str:
    """Return a digest of names and modification times of all that a code location is made of."""
    files = {path for root in (*_OURS, settings.defs_root) for path in root.rglob("*") if path.suffix in _READ}
    files.add(settings.home.sources)
    return hashlib.sha256("\n".join(f"{path} {_changed(path)}" for path in sorted(files)).encode()).hexdigest()


def _changed(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0
