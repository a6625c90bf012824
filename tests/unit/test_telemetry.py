"""Nothing calls home, also where a program of ours is started without our settings."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from resources.variables import QUIET


def test_onnxruntime_keeps_no_record_of_its_use(tmp_path: Path, checkout: Path) -> None:
    bare = {name: value for name, value in os.environ.items() if name not in QUIET}
    subprocess.run(
        [sys.executable, "-c", "import platform_assets.stages.serving.bundle"],
        cwd=checkout,
        env={**bare, "HOME": str(tmp_path)},
        check=True,
    )
    assert list(tmp_path.iterdir()) == []
