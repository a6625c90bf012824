"""How well a GPU is used: `python -m platform_assets.stages.training.gpu_figures`, one line of JSON. Needs the trainer's own imports alone.

The trainer's own loop, feed and text transformer of about 125M weights on full sequences, against what the card's matrix units give in
bf16. Model FLOP utilisation counts the arithmetic of forward and backward once, not what is computed again.
`--small` is a network of a few thousand weights that runs anywhere: it shows that the script works and measures nothing.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from platform_assets.networks.architectures import build_network
from platform_assets.networks.architectures.text_transformer import SPREAD
from platform_assets.networks.companions import Figures
from platform_assets.networks.course import Course
from platform_assets.networks.feed.encoded import EncodedSplit
from platform_assets.networks.feed.layout import Layout
from platform_assets.networks.feed.shard_feed import ShardFeed
from platform_assets.networks.fitting import Classifier, Lesson
from platform_assets.networks.launch import open_fabric
from platform_assets.networks.loop import Loop
from platform_assets.networks.plans import RunPlan, TrainingPlan
from platform_assets.networks.preprocessing import Preprocessing
from platform_assets.networks.tokens import FIRST, Tokeniser

CLASSES = 2
_MATRIX = 8192
_MATRIX_ROUNDS = 50


@dataclass(frozen=True)
class Size:
    """A network and its feed; `length` tokens and the summary make the sequence."""

    width: int
    depth: int
    heads: int
    vocabulary: int
    length: int
    batch: int
    rows: int


LARGE = Size(width=768, depth=12, heads=12, vocabulary=50_000, length=1023, batch=32, rows=32 * 60)
SMALL = Size(width=16, depth=2, heads=2, vocabulary=100, length=15, batch=4, rows=32)


class _Paces:
    """A report that keeps the loop's own words on its pace."""

    def __init__(self) -> None:
        self.epochs: list[dict[str, Any]] = []

    def step(self, name: str, **figures: float | str) -> None:
        """Keep the figures of an epoch."""
        if name.endswith("/epoch"):
            self.epochs.append(figures)


def measure(size: Size, *, compiled: bool, micro_batches: int) -> dict[str, Any]:
    """Train three epochs and return the figures of the faster of the last two; the first one warms up and compiles."""
    plan = TrainingPlan(
        "text_transformer", "binary", width=size.width, depth=size.depth, heads=size.heads, dropout=0.0, epochs=3,
        batch_size=size.batch, precision="bf16-mixed",
    )  # fmt: skip
    run = RunPlan(compile=compiled, micro_batches=micro_batches, trace_steps=0)
    fabric = open_fabric(plan, run)
    torch.manual_seed(plan.seed)
    pieces = tuple(f"{number}" for number in range(size.vocabulary - FIRST))
    text = Tokeniser(("text",), pieces, size.length)
    preprocessing = Preprocessing(numbers=(), categories=(), image_size=0, image_scale=1.0, tokeniser=text)
    network = build_network(plan, preprocessing=preprocessing, classes=CLASSES)
    weights = sum(weight.numel() for weight in network.parameters())
    flops = flops_a_row(size)
    report = _Paces()
    with tempfile.TemporaryDirectory() as folder:
        split = _write_split(Path(folder) / "rows", size, preprocessing)
        feed = ShardFeed(split, batch=plan.batch_size, seed=plan.seed, device=fabric.device)
        module = Classifier(network, plan=plan, steps=feed.steps * plan.epochs, lesson=Lesson(classes=CLASSES))
        course = Course(plan=plan, run=run, fabric=fabric, report=report, name="gpu", figures=Figures())
        Loop(module, feed=feed, course=course, judge=lambda _: {}).run()
    best = max(report.epochs[1:], key=lambda epoch: epoch["samples_per_second"])
    rate = _matrix_rate(fabric.device)
    done = best["samples_per_second"] * flops
    return {
        "device": torch.cuda.get_device_name() if fabric.device.type == "cuda" else "cpu", "torch": torch.__version__, "weights": weights,
        "sequence": size.length + 1, "batch": size.batch, "micro_batches": micro_batches, "compiled": compiled,
        "samples_per_second": best["samples_per_second"],
        "tokens_per_second": best["samples_per_second"] * (size.length + 1),
        "gflops_a_row": flops / 1e9, "bf16_matrix_tflops": rate / 1e12, "model_flop_utilisation": done / rate,
        "data_wait": best["data_wait"],
    }  # fmt: skip


def _write_split(path: Path, size: Size, preprocessing: Preprocessing) -> EncodedSplit:
    layout = Layout.of(preprocessing, classes=CLASSES)
    random = np.random.default_rng(7)
    nothing = np.empty((size.rows, 0), np.float32)
    tokens = random.integers(FIRST, size.vocabulary, (size.rows, size.length), dtype=np.int64)
    labels = random.integers(0, CLASSES, size.rows, dtype=np.int64)
    packed = layout.pack((nothing, np.empty((size.rows, 0), np.int64), nothing, tokens, labels))
    packed.tofile(path)
    mapped = torch.from_file(str(path), shared=False, size=packed.nbytes, dtype=torch.uint8)
    return EncodedSplit(layout, (mapped.view(size.rows, layout.row_bytes),))


def flops_a_row(size: Size) -> float:
    """Arithmetic of one row, forward and backward: twice the multiply-adds of all products, three times over.

    As model FLOP utilisation counts it (Chowdhery et al., "PaLM", 2022, appendix B). The last block answers for the summary alone.
    """
    tokens, square = size.length + 1, size.width**2
    block = tokens * (4 + 2 * SPREAD) * square + 2 * tokens**2 * size.width
    last = 2 * tokens * square + (2 + 2 * SPREAD) * square + 2 * tokens * size.width
    return 3 * 2 * ((size.depth - 1) * block + last + CLASSES * size.width)


def _matrix_rate(device: torch.device) -> float:
    """Measure what a square bf16 product gives, in FLOP a second."""
    side = _MATRIX if device.type == "cuda" else 256
    one = torch.randn(side, side, device=device, dtype=torch.bfloat16)
    for _ in range(3):
        torch.mm(one, one)
    _wait(device)
    began = time.perf_counter()
    for _ in range(_MATRIX_ROUNDS):
        torch.mm(one, one)
    _wait(device)
    return 2 * side**3 * _MATRIX_ROUNDS / (time.perf_counter() - began)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def main(arguments: list[str] | None = None) -> int:
    """Measure and print; on a machine without CUDA only `--small` is taken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="a tiny network, for a machine without a GPU; its figures mean nothing")
    parser.add_argument("--compile", action="store_true", help="compile the network")
    parser.add_argument("--batch", type=int, help="rows a step")
    parser.add_argument("--micro-batches", type=int, default=1, help="parts that a step's rows are cut into")
    given = parser.parse_args(arguments)
    if not given.small and not torch.cuda.is_available():
        sys.stderr.write("gpu_figures measures a CUDA device and there is none here; --small shows that the script works\n")
        return 1
    size = SMALL if given.small else LARGE
    size = replace(size, batch=given.batch, rows=60 * given.batch) if given.batch else size
    sys.stdout.write(json.dumps(measure(size, compiled=given.compile, micro_batches=given.micro_batches)) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
