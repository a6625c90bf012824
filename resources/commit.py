"""Which commit this tree is of: Git says it in a checkout, a file in an image, which has no Git."""

from __future__ import annotations

import shutil
import subprocess

from resources.settings import CHECKOUT

COMMIT_FILE = CHECKOUT / "COMMIT"


def find_commit() -> str:
    """Return the commit of the declarations in force, or the word unversioned."""
    if COMMIT_FILE.is_file():
        return COMMIT_FILE.read_text(encoding="utf-8").strip()
    if shutil.which("git") is None:
        return "unversioned"
    answer = subprocess.run(["git", "rev-parse", "HEAD"], cwd=CHECKOUT, capture_output=True, text=True, check=False)
    return answer.stdout.strip() if answer.returncode == 0 else "unversioned"
