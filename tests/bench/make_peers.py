"""Make an environment of its own for each peer of the benchmarks: `python tests/bench/make_peers.py [FOLDER [PEER ...]]`.

Needs a package index. Peers named after the folder are made alone. What cannot be installed is said and left out; the benchmark names it
as missing.
"""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[2] / ".bench-peers"
# onnxruntime, numpy and orjson as in constraints.txt where the peer allows it.
PEERS = {
    "fastapi": ["fastapi==0.115.14", "uvicorn==0.35.0", "uvloop==0.23.0", "httptools==0.9.0", "orjson==3.13.0", "onnxruntime==1.31.1"],
    "mlserver": ["mlserver==1.7.1", "uvloop<0.22", "onnxruntime==1.31.1"],
    "kserve": ["kserve==0.21.0", "onnxruntime==1.31.1"],
    "triton": ["nvidia-pytriton==0.7.0", "onnxruntime==1.31.1"],
    "evidently": ["evidently==0.7.23", "pandas<3", "numpy<2.4", "pyarrow"],
    "nannyml": ["nannyml==0.13.1", "statsmodels", "pandas<3", "numpy<2.4", "pyarrow"],
    "river": ["river==0.26.1", "pyarrow"],
    "zenml": ["zenml[local]==0.98.0", "scikit-learn==1.9.1"],
    "metaflow": ["metaflow==2.19.39", "scikit-learn==1.9.1"],
    "flyte": ["flytekit==1.16.31", "scikit-learn==1.9.1", "pandas<3"],
    "whylogs": ["whylogs[viz]==1.6.4", "pandas<3", "numpy<2.4", "pyarrow"],
}

# pytriton 0.7 brings an older interpreter library that loads this machine's standard library: one method of a lock is missing there.
_TRITON_PATCH = """import _thread
if not hasattr(_thread.RLock, "_recursion_count"):
    import threading
    from multiprocessing import resource_tracker
    resource_tracker._resource_tracker._lock = threading._PyRLock()
"""


def main(arguments: list[str]) -> int:
    """Make what is missing; the exit status tells how many could not be made."""
    folder = Path(arguments[0]) if arguments else FOLDER
    failed = 0
    for name in arguments[1:] or PEERS:
        packages = PEERS[name]
        place = folder / name
        if (place / "installed").exists():
            continue
        venv.create(place, with_pip=True, clear=True)
        done = subprocess.run(
            [place / "bin" / "python", "-m", "pip", "install", "-q", *packages], capture_output=True, text=True, check=False
        )
        if name == "triton":
            for site in place.glob("lib/python*/site-packages"):
                (site / "falaj_patch.pth").write_text("import falaj_patch\n")
                (site / "falaj_patch.py").write_text(_TRITON_PATCH)
        if done.returncode == 0:
            (place / "installed").write_text("\n".join(packages))
            print(f"{name}: installed in {place}")
        else:
            failed += 1
            reason = (done.stderr.strip().splitlines() or ["pip said nothing"])[-1]
            (place / "failed").write_text(reason)
            print(f"{name}: not installed: {reason}", file=sys.stderr)
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
