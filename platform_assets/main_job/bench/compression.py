"""Area `compression`: one automatic search within its declared time, against teachers that are themselves good.

Each teacher is trained by the platform's own trainer and held against boosted trees tuned on the same rows. Of the candidates that lose no
more than a tolerance on the calibration rows the best is taken; the holdout only tells what came of it. Both sides are whole graphs,
preprocessing included, timed in turn in one process on one thread.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from platform_assets.errors import FalajError
from platform_assets.main_job.bench.compression_teachers import Subject, list_subjects
from platform_assets.main_job.bench.core import Row, describe_row, judge_row
from platform_assets.networks.plans import CompressionPlan, RunPlan
from platform_assets.specs.candidates import Candidate, SearchResult
from platform_assets.specs.model import METRICS
from platform_assets.specs.record_json import from_mapping
from platform_assets.stages.evaluation.baseline import fit_baseline
from resources.settings import read_settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

Demands = tuple[float, float, float]
FIGURES = ("CPU a row, alone", "cpu_us_b1"), ("CPU a row of 32", "cpu_us_b32"), ("size", "size_bytes")
# Points of loss to how many times less CPU at one row and at 32, and size, are demanded.
DEMANDS: dict[float, Demands] = {
    0.005: (6.0, 12.0, 40.0),
    0.01: (8.0, 16.0, 60.0),
}
BASELINE_SECONDS = 20.0


def measure(*, quick: bool, console: Console) -> list[Row]:
    """Train every teacher and search; quick: the digits alone, shorter, in which the ratios may fall short."""
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as name:
        for subject in list_subjects(read_settings(), quick=quick, console=console):
            console.print(f"{subject.name}: train, then search for {subject.budget_seconds:g} s of computing ...")
            rows += measure_subject(subject, folder=Path(name) / subject.folder)
    return rows


def measure_subject(subject: Subject, *, folder: Path) -> list[Row]:
    """Train one teacher, search once, and judge what was found; what stands in the folder is not made again."""
    folder.mkdir(parents=True, exist_ok=True)
    data = subject.write(folder / "data") if not (folder / "data").exists() else folder / "data"
    training = _train(subject, data, folder / "training")
    metric = METRICS[subject.kind][0]
    baseline = fit_baseline(data, kind=subject.kind, budget_seconds=BASELINE_SECONDS)
    result = _search(subject, data, training, folder / "search")
    teacher = next(one for one in result.candidates if one.name == "teacher")
    rows = [
        describe_row(f"{subject.name}, teacher, holdout {metric}", value=round(teacher.metrics[metric], 4), unit=metric,
                     against=round(baseline.holdout[metric], 4)),
        describe_row(f"{subject.name}, teacher, size", value=teacher.size_bytes, unit="bytes"),
        describe_row(f"{subject.name}, teacher, CPU a row, alone", value=round(teacher.cpu_us_b1, 1), unit="us"),
        describe_row(f"{subject.name}, teacher, CPU a row of 32", value=round(teacher.cpu_us_b32, 2), unit="us"),
        describe_row(f"{subject.name}, candidates measured", value=len(result.candidates), unit="files"),
    ]  # fmt: skip
    for tolerance, demands in DEMANDS.items():
        rows += judge_frontier(subject.name, result, metric=metric, tolerance=tolerance, demands=demands)
    return rows


def judge_frontier(name: str, result: SearchResult, *, metric: str, tolerance: float, demands: Demands) -> list[Row]:
    """Judge the best candidate within a tolerance against the teacher, and against the best single method."""
    teacher = next(one for one in result.candidates if one.name == "teacher")
    best = choose(result.candidates, tolerance=tolerance, demands=demands)
    what = f"{name}, within {100 * tolerance:g} points: {best.name}"
    rows = [
        judge_row(f"{what}, {metric} lost on the holdout", value=round(100 * best.holdout_drop, 2), unit="points", must=100 * tolerance,
                  better="lower", against="teacher"),
    ]  # fmt: skip
    for (said, field), must in zip(FIGURES, demands, strict=True):
        ratio = getattr(teacher, field) / getattr(best, field)
        rows.append(judge_row(f"{what}, {said}", value=round(ratio, 1), unit="times less", must=must, better="higher", against="teacher"))
    single = choose([one for one in result.candidates if "+" not in one.name], tolerance=tolerance, demands=demands)
    ratio = _score(best, teacher, demands) / _score(single, teacher, demands)
    rows.append(
        judge_row(f"{what}, all three together", value=round(ratio, 2), unit="times as good", must=1.0, better="higher",
                  against=f"best single method: {single.name}"),
    )  # fmt: skip
    return rows


def choose(candidates: Sequence[Candidate], *, tolerance: float, demands: Demands) -> Candidate:
    """Choose the one that is farthest in what it does least of the demands.

    Of those within the tolerance on the calibration rows, a standard error included: so a release is chosen, too.
    """
    teacher = next(one for one in candidates if one.name == "teacher")
    return max((one for one in candidates if one.surely_lost <= tolerance), key=lambda one: (_score(one, teacher, demands), one.name))


def _score(one: Candidate, teacher: Candidate, demands: Demands) -> float:
    return min(getattr(teacher, field) / getattr(one, field) / must for (_, field), must in zip(FIGURES, demands, strict=True))


def _train(subject: Subject, data: Path, out: Path) -> Path:
    if not (out / "result.json").is_file():
        spec, run = out.with_suffix(".json"), out.with_suffix(".run.json")
        spec.write_text(json.dumps(asdict(subject.plan)))
        run.write_text(json.dumps(asdict(RunPlan(trace_steps=0))))
        _run("training", "--data", data, "--spec", spec, "--run", run, "--out", out, "--cache", out.with_suffix(".cache"))
    return out


def _search(subject: Subject, data: Path, training: Path, out: Path) -> SearchResult:
    if not (out / "result.json").is_file():
        plan = CompressionPlan(subject.kind, budget_seconds=subject.budget_seconds, tolerate_drop=min(DEMANDS))
        spec = out.with_suffix(".json")
        spec.write_text(json.dumps(asdict(plan)))
        _run("compression", "--training", training, "--data", data, "--spec", spec, "--out", out, "--threads", 1)
    found = json.loads((out / "result.json").read_text())
    return from_mapping(SearchResult, {name: found[name] for name in ("candidates", "rejected")})


def _run(program: str, *arguments: object) -> None:
    command = [sys.executable, "-m", f"platform_assets.stages.{program}", *(str(one) for one in arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise FalajError(f"bench: {' '.join(command)} ended with {done.returncode}: {done.stderr.strip()[-800:]}")
