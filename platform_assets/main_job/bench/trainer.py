"""The trainer against loops written by hand, on the same rows, network and optimiser; and against itself.

Every contestant is a process of its own, all run in turn, medians are compared. Samples a second are those of whole epochs but the
first, judging left out; the peers' loops stand in `training_peers`.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from platform_assets.errors import FalajError
from platform_assets.main_job.bench.core import Row, describe_row, interleave, judge_row, run_contestant
from platform_assets.networks.plans import RunPlan, TrainingPlan
from platform_assets.stages.training.torchrun import python_arguments

if TYPE_CHECKING:
    import pyarrow as pa
    from rich.console import Console

    from platform_assets.specs.records import FeatureSchema

ROWS, QUICK_ROWS = 500_000, 60_000
NUMBERS, CATEGORIES = 40, 10
THREADS = 2
_PART = 100_000
_HELD_OUT = 10_000
_NEVER = 1e9
_PEERS = "platform_assets.main_job.bench.training_peers"
_MLP = {"architecture": "tabular_mlp", "width": 256, "depth": 3}
_TRANSFORMER = {"architecture": "tabular_transformer", "width": 32, "depth": 2, "heads": 2}


def measure(*, quick: bool, console: Console) -> list[Row]:
    """Run all comparisons; quick: an eighth of the rows, each contestant once, no checkpointing and memory rows."""
    rows, repeats = (QUICK_ROWS, 1) if quick else (ROWS, 3)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        console.print(f"training, {rows:,} rows of {NUMBERS} numbers and {CATEGORIES} categories, {THREADS} threads ...")
        write_rows(folder / "data", rows=rows)
        found = _compare_speed(folder, _MLP, epochs=2, repeats=repeats, against_data_loader=True)
        found += _compare_speed(folder, _TRANSFORMER, epochs=2 if quick else 1, repeats=repeats, against_data_loader=False)
        found += _compare_processes(folder, repeats=repeats)
        if not quick:
            found += _compare_checkpointing(folder)
            found += _compare_memory(folder)
            found += _measure_gpu(console)
    return found


def _compare_speed(folder: Path, network: dict[str, Any], *, epochs: int, repeats: int, against_data_loader: bool) -> list[Row]:
    what = network["architecture"]
    plan = _plan(network, epochs=epochs)
    spec = _write_plan(folder / f"{what}.json", plan)
    arguments = [str(folder / "data"), str(spec)]
    contestants = {
        "ours": partial(_train, folder, plan, RunPlan()),
        "loop written by hand": partial(run_contestant, _PEERS, ["by_hand", *arguments]),
    }
    if against_data_loader:
        contestants["Lightning with a DataLoader"] = partial(run_contestant, _PEERS, ["data_loader", *arguments])
    found = interleave(contestants, repeats=repeats)
    speed = {name: figures["samples_per_second"] for name, figures in found.items()}
    rows = [describe_row(f"{what}, {name}", value=round(value), unit="samples/s") for name, value in speed.items()]
    must, aim = (0.93, 0.98) if what == "tabular_mlp" else (0.98, 1.0)
    rows.append(
        judge_row(
            f"{what}, memory-mapped shards, logging and checkpoints on", value=round(speed["ours"] / speed["loop written by hand"], 3),
            unit="x", must=must, aim=aim, better="higher", against="a PyTorch loop over preloaded tensors",
        )
    )  # fmt: skip
    if against_data_loader:
        ratio = speed["ours"] / speed["Lightning with a DataLoader"]
        against = "the same module under pl.Trainer with a map-style DataLoader"
        rows.append(judge_row(f"{what}", value=round(ratio, 2), unit="x", must=1.8, aim=2.0, better="higher", against=against))
    return rows


def _compare_processes(folder: Path, *, repeats: int) -> list[Row]:
    plan = _plan(_MLP, epochs=2)
    found = interleave(
        {"one": partial(_train, folder, plan, RunPlan()), "two": partial(_train, folder, plan, RunPlan(), processes=2)}, repeats=repeats
    )
    ratio = found["two"]["samples_per_second"] / found["one"]["samples_per_second"]
    against = "one process with two threads"
    return [
        judge_row(
            "tabular_mlp, two gloo processes on two cores",
            value=round(ratio, 3),
            unit="x",
            must=0.9,
            aim=1.05,
            better="higher",
            against=against,
        )
    ]


def _compare_checkpointing(folder: Path) -> list[Row]:
    """Eight epochs take more than a minute, so that checkpoints every 30 s come twice at least."""
    plan = _plan(_MLP, epochs=8)
    runs = {name: partial(_train, folder, plan, RunPlan(checkpoint_seconds=every)) for name, every in (("on", 30.0), ("off", _NEVER))}
    found = interleave(runs, repeats=2)
    slower = found["off"]["samples_per_second_mean"] / found["on"]["samples_per_second_mean"] - 1
    return [
        judge_row(
            "tabular_mlp, checkpoints every 30 s", value=round(100 * slower, 2), unit="% slower", must=3.0, aim=1.0, better="lower",
            against="no checkpoints",
        )
    ]  # fmt: skip


def _compare_memory(folder: Path) -> list[Row]:
    write_rows(folder / "large", rows=10 * ROWS)
    plan = _plan(_MLP, epochs=1)
    run = RunPlan(sample_seconds=0.25)
    found = interleave({"1x": partial(_train, folder, plan, run), "10x": partial(_train, folder, plan, run, data="large")}, repeats=1)
    small, large = (found[name]["private_bytes"] for name in ("1x", "10x"))
    return [
        describe_row(f"peak private memory, {ROWS:,} rows", value=round(small / 2**20), unit="MiB"),
        judge_row(
            "peak private memory, ten times the rows",
            value=round(large / small, 3),
            unit="x",
            must=1.1,
            aim=1.02,
            better="lower",
            against="1x",
        ),
    ]


def _measure_gpu(console: Console) -> list[Row]:
    """Left out where there is no GPU: a figure that was not measured is none."""
    import torch

    if not torch.cuda.is_available():
        console.print("no GPU is at hand: its row is left out")
        return []
    figures = run_contestant("platform_assets.stages.training.gpu_figures", ["--compile"])
    what = f"text transformer of {figures['weights'] / 1e6:.0f}M weights, bf16, sequence {figures['sequence']:.0f}"
    return [
        judge_row(
            f"{what}, model FLOP utilisation", value=round(figures["model_flop_utilisation"], 3), unit="x", must=0.45, aim=0.55,
            better="higher", against="the card's measured bf16 matrix rate",
        ),
        judge_row(f"{what}, data wait", value=round(100 * figures["data_wait"], 2), unit="%", must=2.0, better="lower"),
    ]  # fmt: skip


def _train(folder: Path, plan: TrainingPlan, run: RunPlan, *, processes: int = 1, data: str = "data") -> dict[str, float]:
    """Run the trainer as a user's run would; return its pace and its peak of private memory."""
    with tempfile.TemporaryDirectory(dir=folder) as name:
        work = Path(name)
        (work / "run.json").write_text(json.dumps(asdict(run)))
        spec = _write_plan(work / "spec.json", plan)
        command = [
            sys.executable, *python_arguments("platform_assets.stages.training", processes=processes),
            "--data", str(folder / data), "--spec", str(spec), "--run", str(work / "run.json"),
            "--out", str(work / "out"), "--cache", str(folder / "cache"),
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise FalajError(f"bench: {' '.join(command)} ended with {done.returncode}: {done.stderr.strip()[-800:]}")
        lines = list(_lines(work / "out" / "progress.jsonl"))
        paces = [line["samples_per_second"] for line in lines if line["step"] == "train/epoch"]
        measured = paces[1:] or paces
        peak = max(sum(sample) for sample in _memory(work / "out"))
    mean = len(measured) / sum(1 / pace for pace in measured)
    return {"samples_per_second": median(measured), "samples_per_second_mean": mean, "private_bytes": peak}


def _memory(out: Path) -> Iterator[tuple[float, ...]]:
    files = [[line["private_bytes"] for line in _lines(path)] for path in sorted(out.glob("telemetry*.jsonl"))]
    yield from zip(*files, strict=False)


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    for text in path.read_text().splitlines():
        yield json.loads(text)


def _plan(network: dict[str, Any], *, epochs: int) -> TrainingPlan:
    return TrainingPlan(kind="binary", epochs=epochs, batch_size=1024, threads=THREADS, **network)


def _write_plan(path: Path, plan: TrainingPlan) -> Path:
    path.write_text(json.dumps(asdict(plan)))
    return path


def write_rows(folder: Path, *, rows: int) -> None:
    """Write a seeded training set: `rows` to train on, ten thousand for calibration and for the holdout."""
    from platform_assets.networks.shards import write_training_set

    folder.mkdir(parents=True)
    parts = {"train": rows, "calibration": _HELD_OUT, "holdout": _HELD_OUT}
    write_training_set(folder, {name: _rows(count, seed=seed) for seed, (name, count) in enumerate(parts.items())}, schema=_schema())


def _schema() -> FeatureSchema:
    from platform_assets.specs.records import Feature, FeatureSchema

    numbers = [Feature(f"n{place}", "numeric", "view", "key") for place in range(NUMBERS)]
    categories = [Feature(f"c{place}", "category", "view", "key") for place in range(CATEGORIES)]
    return FeatureSchema((*numbers, *categories), "label", ("0", "1"), "key", "at")


def _rows(count: int, *, seed: int) -> Iterator[pa.Table]:
    """Numbers with a few missing, categories of 4 to 400 values, a label that leans on both."""
    import numpy as np
    import pyarrow as pa

    random = np.random.default_rng(seed)
    for start in range(0, count, _PART):
        size = min(_PART, count - start)
        numbers = random.normal(size=(NUMBERS, size))
        codes = [random.integers(0, int(4 * 10 ** (2 * place / (CATEGORIES - 1))), size) for place in range(CATEGORIES)]
        score = numbers[:8].sum(0) + numbers[8] * numbers[9] + (codes[0] % 2) * 2 - 1
        label = (score + random.logistic(size=size) > 0).astype(int)
        numbers[random.random(numbers.shape) < 0.01] = np.nan  # noqa: PLR2004 - one in a hundred is missing
        yield pa.table(
            {f"n{place}": pa.array(column, from_pandas=True) for place, column in enumerate(numbers)}
            | {f"c{place}": pa.array(np.char.add("value-", column.astype(str)).tolist()) for place, column in enumerate(codes)}
            | {"label": pa.array(label.astype(str).tolist())}
        )
