"""The search's door: `python -m platform_assets.stages.compression --training DIR --data DIR --spec spec.json --out DIR`.

spec.json holds the fields of specs.model.CompressionSpec and the target's `kind`. Writes candidates/<name>/, rejections.json and,
last of all, result.json with the list of candidates: an --out with a result.json is whole, one without goes on where it stopped.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import asdict
from pathlib import Path

from platform_assets.errors import StageError
from platform_assets.networks.checkpoint import write_json
from platform_assets.networks.companions import open_progress
from platform_assets.networks.plans import CompressionPlan
from platform_assets.networks.program import read_file, run_program, use_threads
from platform_assets.specs.record_json import read_record


def main(arguments: list[str] | None = None) -> int:
    """Search as told; 0 when result.json is written, 1 with a sentence on stderr otherwise."""
    parser = argparse.ArgumentParser(
        prog="python -m platform_assets.stages.compression", description="Make and measure compressed candidates of one training."
    )
    parser.add_argument("--training", type=Path, required=True, help="folder of the training")
    parser.add_argument("--data", type=Path, required=True, help="folder of the training set")
    parser.add_argument("--spec", type=Path, required=True, help="JSON of the compression plan")
    parser.add_argument("--out", type=Path, required=True, help="folder to write; what stands there already is used")
    parser.add_argument("--threads", type=int, default=1, help="torch threads while students learn (default 1)")
    given = parser.parse_args(arguments)

    def work() -> None:
        from platform_assets.stages.compression.search import search

        use_threads(given.threads)
        start = time.monotonic()
        with open_progress(given.out) as progress:
            candidates, rejected = search(given.training, given.data, _read_plan(given.spec), work_dir=given.out, report=progress)
            result = {
                "candidates": [asdict(c) for c in candidates],
                "rejected": [asdict(r) for r in rejected],
                "seconds": time.monotonic() - start,
            }
            write_json(given.out / "result.json", result)
            progress.materialised({"candidates": len(candidates), "seconds": result["seconds"]})

    return run_program(work)


def _read_plan(path: Path) -> CompressionPlan:
    try:
        return read_record(CompressionPlan, read_file(path))
    except ValueError as error:
        raise StageError(f"{path} is no compression plan: {error}") from error


if __name__ == "__main__":
    sys.exit(main())
