"""The search over compressed candidates. Today it runs the declared list; what it hands on stays the same when it grows.

Each candidate is a folder `candidates/<name>/` with preprocessing.json (what is fitted in it), model.onnx and, once all are measured,
candidate.json. Networks that compositions share are made once, under `parts/`. A model.onnx stands only when whole, so a killed search
goes on with what is there.
"""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from platform_assets.errors import StageError
from platform_assets.measures import HIGHER_IS_BETTER, METRICS, leading
from platform_assets.networks.checkpoint import PREPROCESSING, load_trained, write_json, write_text
from platform_assets.networks.export import export_onnx
from platform_assets.networks.fitting import predict, to_tensors
from platform_assets.networks.rows import read_rows
from platform_assets.specs.records import Candidate, Rejection, to_json
from platform_assets.stages.compression.measure import INVARIANCE, judge, open_session, time_sessions
from platform_assets.stages.compression.methods import SOFT_SHARE, CompressionRefusedError, Teaching, distil, int8, prune

if TYPE_CHECKING:
    from platform_assets.networks.checkpoint import Trained
    from platform_assets.networks.companions import Report
    from platform_assets.networks.plans import CompressionPlan

NETWORK_METHODS = {"distil": distil.shrink, "prune": prune.shrink}
GRAPH_METHODS = {"int8": int8.quantise}
TEACHER = "teacher"


def search(training: Path, data: Path, plan: CompressionPlan, *, work_dir: Path, report: Report) -> tuple[list[Candidate], list[Rejection]]:
    """Make and measure the teacher and every declared candidate; one that cannot be made is a rejection with its reason.

    `training` is a training folder, `data` the training set it came from. `digest` of a candidate is the SHA-256 of its model.onnx.
    Raises TrainingError or DataError when teacher or data cannot be read at all.
    """
    teacher = load_trained(training)
    teaching = _prepare(teacher, data, plan, report)
    workshop = _Workshop(work_dir, teaching)
    rejected: list[Rejection] = []
    made: dict[str, Path] = {}
    for name in (TEACHER, *dict.fromkeys(plan.candidates)):
        start = time.monotonic()
        try:
            made[name] = workshop.make(name)
        except (
            StageError,
            RuntimeError,
            ValueError,
            NotImplementedError,
        ) as error:  # what torch-pruning and onnxruntime raise on a graph they cannot take
            if name == TEACHER:
                raise
            rejected.append(Rejection(name, f"could not be made: {error}"))
        report.step(f"candidate/{name}", made=str(name in made), seconds_wall=time.monotonic() - start)
    candidates, unfit = _measure(made, workshop, data=data)
    write_json(work_dir / "rejections.json", [vars(entry) for entry in (*rejected, *unfit)])
    return candidates, [*rejected, *unfit]


def _prepare(teacher: Trained, data: Path, plan: CompressionPlan, report: Report) -> Teaching:
    rows = {split: read_rows(data, split, schema=teacher.schema) for split in ("train", "calibration")}
    inputs = {split: to_tensors(part, preprocessing=teacher.preprocessing) for split, part in rows.items()}
    hard = torch.nn.functional.one_hot(torch.from_numpy(rows["train"].labels), len(teacher.schema.classes)).float()
    soft = torch.from_numpy(predict(teacher.network, inputs["train"]))
    targets = SOFT_SHARE * soft + (1 - SOFT_SHARE) * hard
    return Teaching(teacher, plan, inputs["train"], rows["train"], inputs["calibration"], rows["calibration"], targets, report)


class _Workshop:
    """Makes each file once and finds it again."""

    def __init__(self, root: Path, teaching: Teaching) -> None:
        self.root = root
        self.teaching = teaching

    def make(self, name: str) -> Path:
        """Return the model.onnx of a candidate, made unless it stands."""
        first, *rest = name.split("+")
        path = self.part(TEACHER) if first in GRAPH_METHODS or first == TEACHER else self.part(first)
        if first in GRAPH_METHODS:
            rest = [first, *rest]
        target = self.folder(name) / "model.onnx"
        if target.is_file():
            return target
        target.parent.mkdir(parents=True, exist_ok=True)
        write_text(target.with_name(PREPROCESSING), path.with_name(PREPROCESSING).read_text(encoding="utf-8"))
        for step in rest:
            if step not in GRAPH_METHODS:
                raise CompressionRefusedError(f"{name}: {step} works on networks and must come first")
            GRAPH_METHODS[step](path, target)
            path = target
        if not rest:
            beside = target.with_name(".model.onnx")
            beside.write_bytes(path.read_bytes())
            beside.replace(target)
        return target

    def part(self, name: str) -> Path:
        """Return the float file of a network, with its parameter count beside it."""
        target = self.root / "parts" / name / "model.onnx"
        if target.is_file():
            return target
        if name != TEACHER and name not in NETWORK_METHODS:
            raise CompressionRefusedError(f"no compression method {name!r}; known: {', '.join([*NETWORK_METHODS, *GRAPH_METHODS])}")
        made = self.teaching.teacher if name == TEACHER else NETWORK_METHODS[name](self.teaching)
        target.parent.mkdir(parents=True, exist_ok=True)
        write_text(target.with_name("parameters"), str(sum(weight.numel() for weight in made.network.parameters())))
        write_text(target.with_name(PREPROCESSING), to_json(made.preprocessing))
        export_onnx(made, target)
        return target

    def parameters(self, name: str) -> int:
        """Weights of the network behind a candidate."""
        first = name.partition("+")[0]
        return int((self.root / "parts" / (first if first in NETWORK_METHODS else TEACHER) / "parameters").read_text())

    def folder(self, name: str) -> Path:
        """Folder of a candidate."""
        return self.root / "candidates" / name


def _measure(made: dict[str, Path], workshop: _Workshop, *, data: Path) -> tuple[list[Candidate], list[Rejection]]:
    plan, teacher = workshop.teaching.plan, workshop.teaching.teacher
    holdout = read_rows(data, "holdout", schema=teacher.schema)
    said = predict(teacher.network, to_tensors(holdout, preprocessing=teacher.preprocessing))
    sessions = {name: open_session(path, threads=plan.threads) for name, path in made.items()}
    answers = {name: judge(session, rows=holdout, teacher=said, kind=plan.kind) for name, session in sessions.items()}
    timings = time_sessions(sessions, rows=holdout)
    best = leading(answers[TEACHER].metrics, kind=plan.kind)
    sign = 1 if HIGHER_IS_BETTER[METRICS[plan.kind][0]] else -1
    candidates, rejected = [], []
    for name, path in made.items():
        found, content = answers[name], path.read_bytes()
        if found.batch_difference > INVARIANCE:
            rejected.append(
                Rejection(name, f"a row alone and in a batch differ by {found.batch_difference:.2g}, allowed is {INVARIANCE:g}")
            )
        elif not np.isfinite(found.max_difference):
            rejected.append(Rejection(name, "it answers with values that are not numbers"))
        else:
            candidate = Candidate(
                name=name,
                digest=hashlib.sha256(content).hexdigest(),
                size_bytes=len(content),
                parameters=workshop.parameters(name),
                metrics=found.metrics,
                drop=sign * (best - leading(found.metrics, kind=plan.kind)),
                max_difference=found.max_difference,
                agreement=found.agreement,
                **vars(timings[name]),
            )
            write_text(workshop.folder(name) / "candidate.json", to_json(candidate))
            candidates.append(candidate)
    return candidates, rejected
