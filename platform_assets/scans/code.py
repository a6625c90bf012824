"""Static analysis of our own code for what is dangerous, whatever a comment in it says: ruff's rules after Bandit."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

from platform_assets.errors import ScanError
from platform_assets.scans.findings import Finding

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

# What Bandit rates high, and what runs or builds whatever a file says (exec, eval, pickle, YAML). The others are `make lint`'s.
HIGH = (
    "S102", "S201", "S202", "S301", "S302", "S307", "S321", "S323", "S324", "S401", "S402", "S501", "S502", "S503", "S505", "S506", "S507",
    "S509", "S602", "S604", "S605", "S609", "S701", "S702",
)  # fmt: skip


def find_danger(root: Path, files: Sequence[str]) -> list[Finding]:
    """Return a finding for each rule and file, of Python files outside `tests`; neither settings nor `noqa` silence a rule."""
    ours = [name for name in files if name.endswith(".py") and not name.startswith("tests/")]
    if not ours:
        raise ScanError(f"{root} has no Python file outside tests, so there is no code to scan; a scan of nothing is no scan.")
    command = [sys.executable, "-m", "ruff", "check", "--isolated", "--no-cache", "--ignore-noqa", "--exit-zero", "--output-format=json"]
    done = subprocess.run([*command, f"--select={','.join(HIGH)}", "--", *ours], cwd=root, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ScanError(f"ruff could not look at the code: {' '.join(done.stderr.split())[:300]}")
    found: dict[tuple[str, str], Finding] = {}
    for one in json.loads(done.stdout):
        path, line = one["filename"].removeprefix(f"{root.resolve()}/"), one["location"]["row"]
        if one["code"] not in HIGH:
            raise ScanError(f"{path}:{line} is no Python that ruff can read ({one['message']}), so nobody can say what it does.")
        found.setdefault((one["code"], path), Finding(one["code"], path, "high", f"line {line}: {one['message']}"))
    return list(found.values())
