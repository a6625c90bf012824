"""The same three steps, load, train and register, here and on what others run on a laptop, each in an environment of its own.

Programs stand in `tests/bench/peers`, environments are made by `tests/bench/make_peers.py`. What each keeps of a run differs: Flyte keeps
a file, Metaflow files, ZenML and ours runs, artefacts and who did what. The first run of each only warms up.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from platform_assets.errors import FalajError
from platform_assets.main_job.bench.core import describe_row, interleave, judge_row, measured
from platform_assets.main_job.bench.serving_peers import PEERS_FOLDER
from resources.settings import CHECKOUT

if TYPE_CHECKING:
    from rich.console import Console

    from platform_assets.main_job.bench.core import Row

_PROGRAMS = CHECKOUT / "tests" / "bench" / "peers"
_PEERS = {"flyte": ["."], "metaflow": ["run"], "zenml": []}
_PATIENCE_SECONDS = 300
_SILENT = {"DO_NOT_TRACK": "1", "ZENML_ANALYTICS_OPT_IN": "false", "METAFLOW_USER": "bench", "FLYTE_SDK_LOGGING_LEVEL": "40"}


def measure(*, quick: bool, console: Console) -> list[Row]:
    """Run all that are installed in turn, each in a folder of its own; quick: once, else five times, after a run that warms up."""
    console.print("orchestration, three steps that train and register, here and elsewhere ...")
    with tempfile.TemporaryDirectory() as name:
        contestants = {
            "falaj, forked": partial(_forked, Path(name) / "home"),
            "falaj, a process of its own": partial(_alone, Path(name) / "home"),
        }
        for peer, arguments in _PEERS.items():
            if (PEERS_FOLDER / peer / "installed").exists():
                (Path(name) / peer).mkdir()
                contestants[peer] = partial(
                    _run, [PEERS_FOLDER / peer / "bin" / "python", _PROGRAMS / f"{peer}_train.py", *arguments], Path(name) / peer
                )
            else:
                console.print(f"left out: {peer}: tests/bench/make_peers.py was not run, or could not install it")
        interleave(contestants, repeats=1)
        found = interleave(contestants, repeats=1 if quick else 5)
    rows = [
        describe_row(f"train and register, {who}: {kind}", value=round(figures[f"{kind}_seconds"], 2), unit="s")
        for who, figures in found.items() for kind in ("wall", "cpu")
    ]  # fmt: skip
    peers = {who: figures["wall_seconds"] for who, figures in found.items() if who in _PEERS}
    if peers:
        next_best = min(peers, key=lambda who: peers[who])
        ratio = found["falaj, forked"]["wall_seconds"] / peers[next_best]
        rows.append(judge_row("train and register, forked as the daemon does", value=round(ratio, 2), unit="x", must=1.0, aim=0.5,
                              better="lower", against=next_best))  # fmt: skip
    return rows


def _forked(home: Path) -> dict[str, float]:
    """Wall and CPU seconds of the fork alone, as the program tells them: what it forks from stands already where a daemon runs."""
    done = _call([sys.executable, _PROGRAMS / "falaj_train.py", home, "warm"], CHECKOUT, None)
    figures: dict[str, float] = json.loads(done.strip().splitlines()[-1])
    if figures["status"]:
        raise FalajError(f"bench: the forked run ended with {figures['status']}")
    return {kind: figures[kind] for kind in ("wall_seconds", "cpu_seconds")}


def _alone(home: Path) -> dict[str, float]:
    return _timed([sys.executable, _PROGRAMS / "falaj_train.py", home], CHECKOUT, None)


def _run(command: list[Path | str], folder: Path) -> dict[str, float]:
    return _timed(command, folder, {"PATH": f"{Path(command[0]).parent}:{os.defpath}", "HOME": str(folder), "LANG": "C.UTF-8", **_SILENT})


def _timed(command: list[Path | str], folder: Path, environment: dict[str, str] | None) -> dict[str, float]:
    with measured() as spent:
        _call(command, folder, environment)
    return {"wall_seconds": spent.wall_seconds, "cpu_seconds": spent.cpu_seconds}


def _call(command: list[Path | str], folder: Path, environment: dict[str, str] | None) -> str:
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False,
        timeout=_PATIENCE_SECONDS,
    )  # fmt: skip
    if done.returncode != 0:
        raise FalajError(f"bench: {' '.join(map(str, command))} ended with {done.returncode}: {done.stderr.strip()[-800:]}")
    return done.stdout
