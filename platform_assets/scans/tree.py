"""The files of a checkout: what Git tracks or would track."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

from platform_assets.errors import ScanError

if TYPE_CHECKING:
    from pathlib import Path


def list_files(root: Path) -> list[str]:
    """Return paths relative to `root`, ignored files left out; ScanError where there are none."""
    asked = ["git", "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        done = subprocess.run(asked, capture_output=True, check=False)
    except FileNotFoundError as error:
        raise ScanError("git is not installed, so nobody can say which files there are to scan.") from error
    found = [name for name in done.stdout.decode(errors="surrogateescape").split("\0") if name and (root / name).is_file()]
    if done.returncode or not found:
        raise ScanError(f"{root} is no Git checkout with files in it, so there is nothing to scan; a scan of nothing is no scan.")
    return sorted(found)
