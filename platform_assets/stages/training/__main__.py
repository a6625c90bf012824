"""The trainer's door: `python -m platform_assets.stages.training --data DIR --spec spec.json --out DIR [--warm-start checkpoint.pt]`.

spec.json holds the fields of specs.model.LearningSpec and the target's `kind`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from platform_assets.errors import TrainingError
from platform_assets.networks.companions import open_progress
from platform_assets.networks.plans import TrainingPlan
from platform_assets.networks.program import read_file, run_program
from platform_assets.specs.records import read_record


def main(arguments: list[str] | None = None) -> int:
    """Train as told; 0 when the training folder is whole, 1 with a sentence on stderr otherwise."""
    parser = argparse.ArgumentParser(prog="python -m platform_assets.stages.training", description="Train one model from one training set.")
    parser.add_argument("--data", type=Path, required=True, help="folder of the training set")
    parser.add_argument("--spec", type=Path, required=True, help="JSON of the training plan")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--warm-start", type=Path, help="checkpoint.pt of an earlier training, its other files beside it")
    given = parser.parse_args(arguments)

    def work() -> None:
        from platform_assets.stages.training.work import train

        with open_progress(given.out) as progress:
            result = train(given.data, plan=_read_plan(given.spec), out=given.out, warm=given.warm_start, report=progress)
            progress.materialised({"parameters": result.parameters, "seconds": result.seconds, **result.holdout})

    return run_program(work)


def _read_plan(path: Path) -> TrainingPlan:
    try:
        return read_record(TrainingPlan, read_file(path))
    except ValueError as error:
        raise TrainingError(f"{path} is no training plan: {error}") from error


if __name__ == "__main__":
    sys.exit(main())
